"""What a scenario may say of how its fleet lives: router, clients, start-up, autoscaling, failures, other endpoints.

The same kind of frozen models as in `models`, which imports these. Imports pydantic and `parts`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from simroute.scenario.parts import Count, Name, NonNegative, Part, Positive, Share, Switch, Whole


class SignalSpec(Part):
    """How a metric comes to the router."""

    interval_s: NonNegative = 0.0
    """It is read every so often; 0: the router always knows it."""
    delay_s: NonNegative = 0.0
    """It is known so long after it was read."""
    jitter_s: NonNegative = 0.0
    """It is read up to so much late."""
    loss: Share = 0.0
    """Share of readings that never arrive."""

    @model_validator(mode="after")
    def _live(self) -> SignalSpec:
        if not self.interval_s and (self.delay_s or self.jitter_s or self.loss):
            raise ValueError("delay_s, jitter_s and loss need an interval_s above 0")
        return self


class SignalsSpec(Part):
    """Metrics that come in another way than all the others."""

    running: SignalSpec | None = None
    """`vllm:num_requests_running`."""
    waiting: SignalSpec | None = None
    """`vllm:num_requests_waiting`."""
    kv_cache_usage: SignalSpec | None = None
    """`vllm:kv_cache_usage_perc`."""


class RuleSpec(Part):
    """A rule by name, with options; a bare name stands for one without."""

    name: Name
    """Its name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class RouterSpec(Part):
    """The router in front of the pools."""

    scrape_interval_s: NonNegative = 0.0
    """Age limit of the metrics the router sees: how often it scrapes the replicas; 0 sees the present."""
    scrape_delay_s: NonNegative = 0.0
    """A metric is known so long after it was read."""
    scrape_jitter_s: NonNegative = 0.0
    """A replica is read up to so much late."""
    scrape_loss: Share = 0.0
    """Share of readings that never arrive."""
    signals: SignalsSpec = SignalsSpec()
    """Metrics that come in another way than that."""
    latency_s: NonNegative = 0.0
    """Time that the router adds to each request."""
    throughput_rps: Positive | None = None
    """Requests a second that the router can handle; more queue in front of it (left out: no limit)."""
    kv_event_delay_s: NonNegative = 0.0
    """KV events, which precise prefix routing reads, come so late."""
    on_loss: Literal["fail", "retry", "resume"] = "retry"
    """When a replica dies under a request: let it fail, send it again, or go on from the tokens that had come."""
    most_resends: Whole = 3
    """Times that a request is sent again after its replica died."""
    admission: tuple[RuleSpec, ...] = ()
    """Rules that turn requests away, asked in order; the first refusal counts."""
    queue: dict[str, Any] | None = None
    """The router's own queue, which holds requests while the fleet is full: its order and limits, see docs/fleet.md
    (left out: every request goes to a replica at once)."""

    @model_validator(mode="after")
    def _live(self) -> RouterSpec:
        if not self.scrape_interval_s and (self.scrape_delay_s or self.scrape_jitter_s or self.scrape_loss):
            raise ValueError("scrape_delay_s, scrape_jitter_s and scrape_loss need a scrape_interval_s above 0")
        return self


class RetriesSpec(Part):
    """What a client does that gets no answer."""

    most: Whole = 3
    """Times that it asks again."""
    backoff_s: Positive = 1.0
    """It waits so long before the first of them."""
    factor: Positive = 2.0
    """Each wait is so many times the one before."""
    longest_s: Positive = 60.0
    """No wait is longer."""
    jitter: Share = 0.0
    """Each wait is drawn from 1 - jitter to 1 + jitter times this."""
    on: tuple[Literal["rejected", "failed", "timeout"], ...] = ("rejected", "failed", "timeout")
    """What it does not accept."""


class CancelSpec(Part):
    """Clients that lose interest."""

    share: Share
    """So many of them do."""
    mean_after_s: Positive
    """After a time drawn from an exponential distribution of this mean."""


class ClientsSpec(Part):
    """How clients behave; left out, they send at the trace's times and wait for ever."""

    timeout_s: dict[str, Positive] = Field(default_factory=dict)
    """Longest wait for a whole answer, by request class; `default` holds for classes not named."""
    retries: RetriesSpec | None = None
    """Asking again (left out: never)."""
    cancel: CancelSpec | None = None
    """Losing interest (left out: nobody does)."""
    users: Count | None = None
    """Closed loop: so many users send the trace's requests in order, each when its last one has ended."""
    wait_in_session: Switch = False
    """A session's next turn waits for its last answer."""
    think_s: NonNegative = 0.0
    """Mean time between an answer and the next request of the same user or session (exponential)."""
    tools: tuple[Name, ...] = ()
    """Request classes whose answers are tool calls: `tool_s` follows them in place of `think_s`."""
    tool_s: NonNegative = 0.0
    """Mean time that a tool works (exponential)."""

    @model_validator(mode="before")
    @classmethod
    def _one_timeout(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("timeout_s"), int | float):
            return {**value, "timeout_s": {"default": value["timeout_s"]}}
        return value

    @model_validator(mode="after")
    def _one_loop(self) -> ClientsSpec:
        if self.users is not None and self.wait_in_session:
            raise ValueError("give users or wait_in_session, not both")
        open_loop = self.users is None and not self.wait_in_session
        for what, given in (("think_s needs", self.think_s), ("tools and tool_s need", self.tools or self.tool_s)):
            if given and open_loop:
                raise ValueError(f"{what} users or wait_in_session: others send at the trace's times")
        if self.tool_s and not self.tools:
            raise ValueError("tool_s needs tools, the request classes whose answers are tool calls")
        return self


class StartupSpec(Part):
    """How long a replica takes from its order to its first request, stage by stage."""

    node_s: NonNegative = 180.0
    """A machine with GPUs comes up."""
    image_s: NonNegative = 60.0
    """It pulls the container image."""
    weights_gb_per_s: Positive = 1.0
    """Speed at which weights are loaded; their size is the model's under its scheme."""
    weights_s: NonNegative | None = None
    """Time to load them, in place of that."""
    engine_s: NonNegative = 60.0
    """The engine compiles, captures CUDA graphs and allocates its KV cache."""


class AutoscaleSpec(Part):
    """Who decides how many replicas a pool has; `replicas` is how many it begins with."""

    name: Name = "hpa"
    """The autoscaler."""
    min_replicas: Whole = 1
    """Least number of replicas; 0 lets the pool go to sleep."""
    max_replicas: Count
    """Most replicas."""
    interval_s: Annotated[float, Field(ge=0.1, strict=True)] = 15.0
    """How often it decides."""
    drain_s: Positive = 300.0
    """Longest time that a replica has to finish what it has, before it is stopped."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its options; see docs/fleet.md."""

    @model_validator(mode="after")
    def _ordered(self) -> AutoscaleSpec:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self


class CrashSpec(Part):
    """Engines that crash and start again on the same machine."""

    mtbf_s: Positive
    """Mean time between failures of one replica that is up (exponential)."""
    pool: Name | None = None
    """Only in this pool (left out: in all)."""


class OutageSpec(Part):
    """Machines that are lost at a given time."""

    at_s: NonNegative
    """When."""
    duration_s: Positive
    """How long no others are to be had in their place."""
    zone: Name | None = None
    """All machines of this zone."""
    pool: Name | None = None
    """Machines of this pool alone."""
    replicas: Count | None = None
    """So many of them, the first ones (left out: all)."""


class SpotSpec(Part):
    """Machines that their owner takes back."""

    pool: Name
    """The pool that runs on them."""
    mean_life_s: Positive
    """Mean time until one is taken back (exponential)."""
    notice_s: NonNegative = 120.0
    """The replica has so long to drain after the notice."""
    gap_s: NonNegative = 0.0
    """Time from the loss to the order of another one."""


class StragglerSpec(Part):
    """A replica that is slow for a while."""

    at_s: NonNegative
    """From when."""
    duration_s: Positive
    """For how long."""
    pool: Name
    """Its pool."""
    replica: Whole = 0
    """Which replica of the pool, from 0."""
    factor: Positive
    """Every step takes so many times as long."""


class RouterRestartSpec(Part):
    """A router that dies: it loses its connections, its queue and all that it knew."""

    at_s: NonNegative
    """When."""
    down_s: NonNegative = 5.0
    """How long nothing gets through."""


class FailuresSpec(Part):
    """What goes wrong."""

    crashes: tuple[CrashSpec, ...] = ()
    """Engines that crash."""
    outages: tuple[OutageSpec, ...] = ()
    """Nodes and zones that are lost."""
    spot: tuple[SpotSpec, ...] = ()
    """Spot machines that are taken back."""
    stragglers: tuple[StragglerSpec, ...] = ()
    """Replicas that get slow."""
    router: tuple[RouterRestartSpec, ...] = ()
    """Restarts of the router."""


class ExternalSpec(Part):
    """Somebody else's endpoint, paid by the token; policies see it as one more pool of one replica."""

    name: Name
    """Name of the pool, unique in the scenario."""
    model: Name
    """Model that answers there; any name, it need not be in the catalogue."""
    usd_per_1m_input_tokens: NonNegative
    """Price of a million prompt tokens."""
    usd_per_1m_output_tokens: NonNegative
    """Price of a million answer tokens."""
    ttft_s: Positive
    """Time to first token (the median, where `spread` is given)."""
    tpot_s: Positive
    """Time per output token after the first."""
    spread: NonNegative = 0.0
    """Standard deviation of the logarithm of a request's own factor on both."""
    requests_per_minute: Positive | None = None
    """Rate limit: beyond it the endpoint answers 429 (left out: none)."""
    max_model_len: Count = 131_072
    """Longest prompt plus answer, tokens."""
    quality: dict[str, Share] = Field(default_factory=dict)
    """Quality of its answers by request class, 0 to 1, as you assume it; `default` holds for classes not named."""
