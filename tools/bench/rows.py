"""What tables need of bench.json files, as one result file on standard output: rows.py BENCH.json..."""
import json
import sys

KEPT = ["model", "layout", "ranks", "device", "dtype", "height", "width", "steps", "batch", "ms_per_step", "encode_s", "denoise_s",
        "decode_s", "picture_s", "pictures_per_second", "peak_memory", "weight_bytes", "load_s", "kernels", "runs", "warmups", "problem"]


# Of times that are not steps': what a table shows.
BRIEF = ["count", "kind", "median", "min", "max"]


def brief(key, value):
    if key == "peak_memory":
        return [{k: v for k, v in rank.items() if k != "reserved_bytes"} for rank in value]
    return {k: value[k] for k in BRIEF if k in value} if key.endswith("_s") and isinstance(value, dict) else value


def rows_of(path):
    with open(path) as f:
        bench = json.load(f)
    for row in bench["rows"]:
        settings = row.get("settings", {})
        engine, frames = settings.get("engine", {}), settings.get("input", {}).get("num_frames")
        attention = engine.get("attention_dtype", "auto")
        yield ({key: brief(key, row[key]) for key in KEPT if key in row} | {"tier": engine.get("tier", "exact")}
               | ({"attention_dtype": attention} if attention != "auto" else {}) | ({"frames": frames} if frames else {}))


def main():
    rows = [row for path in sys.argv[1:] for row in rows_of(path)]
    devices = sorted({row["device"].split(" (")[0] for row in rows if "device" in row})
    head = {"what": "published sizes with random weights, bfloat16, a pair of branches in one pass where guidance has two and the layout does not "
                    "part them", "command": "tools/bench/families.sh", "devices": devices}
    sys.stdout.write(text_of(head, rows))


def text_of(head, rows):
    """A result file: a row on each line."""
    return json.dumps(head, indent=1)[:-2] + ',\n "rows": [\n  ' + ",\n  ".join(map(json.dumps, rows)) + "\n ]\n}\n"


if __name__ == "__main__":
    main()
