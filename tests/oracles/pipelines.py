"""Pipeline schedules, written out: what each device runs, in order, and when each of that can start.

A task is (kind, micro-batch, stage): F a forward pass, B a backward pass, or the part of one that makes the
input's gradient where W, the weights' part, is a task of its own.
"""


def gpipe(p, m):
    """All forward passes, then all backward passes."""
    return [[("F", i, r) for i in range(m)] + [("B", i, r) for i in range(m)] for r in range(p)]


def one_f_one_b(p, m):
    """Forward passes until the pipeline is full, then one backward pass for each."""
    devices = []
    for r in range(p):
        ahead = min(p - r - 1, m)
        order = [("F", i, r) for i in range(ahead)]
        for i in range(m):
            order += [("F", i + ahead, r)] if i + ahead < m else []
            order.append(("B", i, r))
        devices.append(order)
    return devices


def interleaved(p, m, v):
    """Megatron-LM's: each device has v stages, p apart; micro-batches go by groups of p."""

    def forward(k):
        chunk = k % (p * v) // p
        return k // (p * v) * p + k % p, chunk

    def backward(k):
        i, chunk = forward(k)
        return i, v - 1 - chunk

    devices = []
    for r in range(p):
        total = m * v
        ahead = min((p - r - 1) * 2 + (v - 1) * p, total)
        order = [("F", forward(k)) for k in range(ahead)]
        for k in range(total):
            order += [("F", forward(k + ahead))] if k + ahead < total else []
            order.append(("B", backward(k)))
        devices.append([(kind, i, chunk * p + r) for kind, (i, chunk) in order])
    return devices


def zb_h1(p, m):
    """1F1B's order with the weights' part of each backward pass put off, so that as many as p wait."""
    devices = []
    for r in range(p):
        ahead = min(p - r - 1, m)
        order = [("F", i, r) for i in range(ahead)]
        pending = []
        for i in range(m):
            order += [("F", i + ahead, r)] if i + ahead < m else []
            order.append(("B", i, r))
            pending.append(i)
            # The first stage puts off none, the last one p - 1: all have p micro-batches in flight.
            while pending and (len(pending) > r and i + ahead < m):
                order.append(("W", pending.pop(0), r))
            if i + ahead >= m and pending and len(pending) > r:
                order.append(("W", pending.pop(0), r))
        devices.append(order + [("W", i, r) for i in pending])
    return devices


def seconds(devices, took, stages):
    """When the last task ends. took: (kind, stage) -> seconds.

    A forward pass waits for that of the stage before, a backward pass for its own forward pass and for the
    backward pass of the stage behind, W for its backward pass.
    """
    done = {}
    at = [0.0] * len(devices)
    nexts = [0] * len(devices)
    moved = True
    while moved:
        moved = False
        for d, order in enumerate(devices):
            while nexts[d] < len(order):
                kind, i, s = order[nexts[d]]
                needs = {
                    "F": [("F", i, s - 1)] if s else [],
                    "B": [("F", i, s)] + ([("B", i, s + 1)] if s < stages - 1 else []),
                    "W": [("B", i, s)],
                }[kind]
                if any(need not in done for need in needs):
                    break
                start = max([at[d], *(done[need] for need in needs)])
                at[d] = done[kind, i, s] = start + took[kind, s]
                nexts[d] += 1
                moved = True
    assert all(n == len(order) for n, order in zip(nexts, devices, strict=True)), "the schedule is stuck"
    return max(at)


def in_flight(order):
    """The most forward passes of a device whose backward passes (and W, where there are) have not ended."""
    last = "W" if any(kind == "W" for kind, _, _ in order) else "B"
    alive, most = set(), 0
    for kind, i, s in order:
        if kind == "F":
            alive.add((i, s))
        most = max(most, len(alive))
        if kind == last:
            alive.discard((i, s))
    return most
