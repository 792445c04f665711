#!/usr/bin/env python3
"""Makes src/verify/testdata/formulas.json: random formulas and what numpy computes for them in float32."""
import json
import random
import sys

import numpy as np

UNARY = ("sin", "cos", "exp", "tanh", "sqrt", "abs")


def formula(rng, depth):
    kind = rng.random()
    if depth == 0 or kind < 0.15:
        return rng.choice(["x", "x_in", "t", f"{rng.uniform(0.01, 3):.3g}", str(rng.randint(1, 9)), "2.5e-2"])
    if kind < 0.35:
        inner = formula(rng, depth - 1)
        return {"sqrt": f"sqrt(abs({inner}))", "exp": f"exp(-abs({inner}))"}.get(f := rng.choice(UNARY), f"{f}({inner})")
    if kind < 0.45:
        return f"-{formula(rng, depth - 1)}" if rng.random() < 0.5 else f"({formula(rng, depth - 1)})**{rng.choice(['2', '3', '-1', '2**-1 + 1'])}"
    left, right, op = formula(rng, depth - 1), formula(rng, depth - 1), rng.choice("+-*/")
    left, right = (f"({s})" if rng.random() < 0.6 else s for s in (left, right))
    return f"{left} {op} {right}"


def main():
    rng, values = random.Random(9), np.random.default_rng(9)
    names = {n: getattr(np, n) for n in UNARY}
    rows = []
    while len(rows) < 20:
        text = formula(rng, 4)
        x, x_in = (values.standard_normal(6).astype(np.float32) for _ in range(2))
        t = np.float32(values.uniform(0, 1000))
        with np.errstate(all="ignore"):
            try:
                y = np.broadcast_to(np.asarray(eval(text, dict(names), dict(x=x, x_in=x_in, t=t)), dtype=np.float32), x.shape)
            except ZeroDivisionError:
                continue
        # sines of large numbers and powers of hundreds say more about the library than about the parser
        if len(text) < 25 or "x" not in text or not np.isfinite(y).all() or np.abs(y).max() > 1e4 or any(r["text"] == text for r in rows):
            continue
        rows.append({"text": text, "x": x.tolist(), "x_in": x_in.tolist(), "t": float(t), "y": y.tolist()})
    with open(sys.argv[1], "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


if __name__ == "__main__":
    main()
