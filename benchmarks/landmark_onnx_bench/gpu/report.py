"""The records of a card for people: one table of what matters, then a table for each contest."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from landmark_onnx_bench.gpu.forms import STEPS
from landmark_onnx_bench.report import TARGETS, likeness_text, markdown_table, table

REHEARSAL = "no GPU: a rehearsal"

Row = Mapping[str, Any]


def gpu_markdown(document: Mapping[str, Any]) -> str:
    """The document of `GpuRecords` as Markdown."""
    environment, records = document["environment"], document["records"]
    lines = [*_head(environment), *_overview(records)]
    for record in records:
        lines += _section(record)
    lines += ["## torch", "", f"Not compared: {environment['torch']}.", ""]
    if missing := _missing(records):
        lines += ["## Not finished", "", *missing, ""]
    return "\n".join(lines)


def _head(environment: Mapping[str, Any]) -> Iterator[str]:
    machine, card = environment["machine"], environment["identity"]["card"]
    rehearsal = environment["identity"]["rehearsal"]
    yield from (f"# {REHEARSAL if rehearsal else card.get('name', 'a GPU that nvidia-smi does not name')}", "")
    if rehearsal:
        yield from (f"**{REHEARSAL}.** The CPU stood in for CUDA and TensorRT; no figure here is of a GPU.", "")
    yield f"    {' '.join(environment['command'])}"
    yield ""
    if card:
        memory = f", {card['memory_bytes'] / 1e9:.0f} GB" if card.get("memory_bytes") else ""
        yield f"- {card['name']}{memory}, compute capability {card['compute_capability']}, driver {card['driver']}"
    yield f"- {machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores usable"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield f"- {machine['system']}, Python {machine['python']}, {versions}"
    yield from (f"- {name}: {text}" for name, text in environment["providers"].items())
    yield "- Ratios are costs (median latency of an image) by those of the first line of a table: below 1 is faster."
    yield ""


def _overview(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The first table: each model in each form, from the quick steps."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for record in records:
        for row in record["rows"] if STEPS[record["step"]].quick else ():
            cells = found.setdefault((row["model"], row["contestant"]), {})
            cells |= _cells(record["step"], row)
    names = ["like CPU fp32", "ms at batch 1", "images/s at batch 1"]
    names += sorted({name for cells in found.values() for name in cells} - set(names))
    if found:
        rows = [(*key, *(cells.get(name, "") for name in names)) for key, cells in found.items()]
        yield from ("## At a glance", "", *markdown_table(("model", "form", *names), rows), "")


def _cells(step: str, row: Row) -> dict[str, str]:
    size = row["batch_size"]
    if step == "memory":
        peak = row["device_peak_bytes"]
        return {f"peak MB on the card at batch {size}": f"{peak / 1e6:.0f}" if peak is not None else "unknown"}
    rate = {f"images/s at batch {size}": f"{row['images_per_second']:.4g}"}
    if step != "parity":
        return rate
    return {"like CPU fp32": likeness_text(row["likeness"]), "ms at batch 1": f"{row['p50_ms']:.4g}", **rate}


def _section(record: Mapping[str, Any]) -> Iterator[str]:
    if not record["rows"] or STEPS[record["step"]].alone:  # what was found alone is a column of the first table
        return
    yield from (f"## {_title(record)}", "")
    for target, title in TARGETS.items():
        if rows := [row for row in record["rows"] if row["target"] == target]:
            yield from (f"{title}, input {'x'.join(map(str, rows[0]['input']))}:", "", *table(rows), "")
    if facts := record["facts"]:
        rate, cores = facts["host_images_per_second_of_a_core"], facts["cores_that_feed"]
        feeding = ", ".join(f"{count} cores feed {label}" for label, count in cores.items())
        yield from (f"One core reads and prepares {rate:.4g} photos/s: {feeding}.", "")


def _missing(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each reason, and where it was met."""
    places: dict[tuple[str, str], list[str]] = {}
    for record in records:
        reasons = [record["error"]] if record["error"] else [each["error"] for each in record["dropouts"]]
        for reason in reasons:
            place = f"{STEPS[record['step']].title}, batch {record['batch_size']}"
            places.setdefault((record["model"], reason), []).append(place)
    return [f"- {model}: {reason} ({'; '.join(where)})" for (model, reason), where in places.items()]


def _title(record: Mapping[str, Any]) -> str:
    return f"{record['model']}: {STEPS[record['step']].title}, batch {record['batch_size']}"
