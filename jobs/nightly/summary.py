"""The page that is published with a batch: what it is and what is known of it, for a reader who does not know seine."""
from files import counted


def _number(value):
    return "unknown" if value is None else f"{value:.4g}"


def _certificate(certificate):
    kind, ratio = certificate["kind"], certificate["ratio"]
    value, bound, at_random = (_number(certificate[key]) for key in ("value", "bound", "random"))
    if kind == "none" or ratio is None:
        return "This strategy promises nothing about the batch, so there is nothing to certify."
    if kind == "radius":
        return (f"Every sample of the pool lies within a distance of {value} of one that is labelled, pending or in "
                f"this batch. No batch of this size can do better than {bound}, so this one is at most {ratio:.2f} "
                f"times as far as the best possible. Random batches of this size leave samples at {at_random}.")
    if kind == "submodular":
        return (f"The batch adds {value} to what the strategy maximises. No batch of this size can add more than "
                f"{bound}, so this one reaches at least {100 * ratio:.1f} % of the best possible. Random batches add "
                f"{at_random}.")
    if kind == "potential":
        return (f"The mean squared distance of the pool to the batch is {value}; to random batches of this size it is "
                f"{bound}. Below 1 is better than random: {ratio:.3f}.")
    return (f"The scores of the batch add up to {value}; no batch of this size has more than {bound} "
            f"({100 * ratio:.1f} %). Random batches: {at_random}.")


def summary_of(batch, facts):
    timing, certificate = batch["timing"], batch["certificate"]
    truncated = " This is all that was left: the pool is exhausted." if batch["truncated"] else ""
    gone = f"\n| files that it has lost since the last night | {facts['gone']:,} |" if facts["gone"] else ""
    seconds = " + ".join(f"{name} {timing[name]:.1f}" for name in ("read", "select", "certificate", "write"))
    return f"""# {facts["campaign"]}: batch of {facts["night"]}

**{counted(len(batch["ids"]), "sample")} to label**, chosen by `{batch["strategy"]}`, the most important first: `ids.csv`
lists them, `batch.json` has their scores as well.{truncated}

## How good it is

{_certificate(certificate)}
(Measured over {certificate["rows"]:,} rows: {certificate["objective"]}.)

## Counts

| | |
|---|---|
| pool | {batch["pool_rows"]:,} rows in {counted(facts["pool_files"], "file")}, {facts["pool_bytes"] / 2**20:,.1f} MiB |{gone}
| labelled ids that came back | {facts["labelled"]:,} |
| published before, still with the annotators | {facts["pending"]:,} of {facts["published"]:,} |
| candidates for this batch | {batch["candidates"]:,} |

## How it was made

| | |
|---|---|
| seconds | {seconds} |
| on | {counted(timing["ranks"], "rank")} of {counted(timing["threads"], "thread")}, {timing["device"]}, {facts["by"]} |
| starts | {facts["starts"]} |
| digest | `{batch["digest"]}` |
| pool fingerprint | `{batch["pool_fingerprint"]}` |
| seine | {batch["software_version"]}, {batch["created"]} |

The same request gives the same batch on any number of ranks: `seine select --config {facts["request"]}`
"""
