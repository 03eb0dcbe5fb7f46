"""A split replay: `window` replays one, `piece` is what it leaves, `agreement` compares a window's beginning with the
end of the one before it, `joined` puts all of them together.
"""
