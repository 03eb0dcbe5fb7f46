"""The order in which the gateway's queue lets requests go, by definition."""

from __future__ import annotations


class Model:
    """The same queue with lists and no care for speed: what is held, and the tags by the paper's definition."""

    def __init__(self, order, weights):
        self.order, self.weights = order, weights
        self.held, self.start, self.finish, self.virtual, self.tag, self.tags = [], {}, {}, {}, {}, 0

    def flow(self, r):
        return (
            r.priority if "priority" in self.order else 0,
            r.tenant if "fair" in self.order else "",
        )

    def waiting(self, flow):
        return [r for r in self.held if self.flow(r) == flow]

    def begin(self, flow, start):
        self.start[flow], self.tag[flow], self.tags = start, self.tags, self.tags + 1

    def push(self, r):
        flow = self.flow(r)
        if not any(self.flow(other)[0] == flow[0] for other in self.held):
            self.virtual[flow[0]] = 0.0
            self.finish = {f: v for f, v in self.finish.items() if f[0] != flow[0]}
        self.held.append(r)
        if len(self.waiting(flow)) == 1:
            self.begin(flow, max(self.virtual[flow[0]], self.finish.get(flow, 0.0)))

    def pop(self):
        band = min(self.flow(r)[0] for r in self.held)
        flows = {self.flow(r) for r in self.held if self.flow(r)[0] == band}
        flow = min(flows, key=lambda f: (self.start[f], self.tag[f]))
        r = self.waiting(flow)[0]
        self.held.remove(r)
        self.virtual[band] = self.start[flow]
        self.finish[flow] = self.start[flow] + r.input_tokens / self.weights.get(flow[1], 1.0)
        if self.waiting(flow):
            self.begin(flow, self.finish[flow])
        return r
