"""How the hub folder is used, as the card shows it; tests run every example inside the folder."""


def usage(counts: dict[str, dict[str, int]]) -> str:
    """Return the card's examples for a folder with these rows, {subset: {split: rows}}."""
    small = min(counts, key=lambda name: sum(counts[name].values()))
    return _USAGE.replace(
        "SMALL-audio", "audio" if small == "default" else f"{small}-audio"
    ).replace("SMALL", small)


_USAGE = """Run these inside the folder, or put its path or its name on the hub for `folder`.

With the datasets library, every config by its name:

```python
from pathlib import Path

from datasets import load_dataset

folder = str(Path.cwd())
captions = load_dataset(folder, "default")
print(captions["train"][0]["caption"])

small = load_dataset(folder, "SMALL")  # each smaller config's rows are in all larger ones
assert set(small["train"]["id"]) <= set(captions["train"]["id"])
```

With the clips. Access to `file_name` decodes with torchcodec where that is installed; the FLAC
bytes can be read without it:

```python
import io

import soundfile
from datasets import Audio

clips = load_dataset(folder, "SMALL-audio").cast_column("file_name", Audio(decode=False))
row = clips["train"][0]
wave, sampling_rate = soundfile.read(io.BytesIO(row["file_name"]["bytes"]))
print(row["caption"], wave.shape, sampling_rate)
```

Positive and negative examples of a concept, for TCAV:

```python
from collections import Counter

train = load_dataset(folder, "default", split="train")
concept, n_clips = Counter(t for row in train for t in row["instrument_aspects"]).most_common(1)[0]
positive = train.filter(lambda row: concept in row["instrument_aspects"])
negative = train.filter(lambda row: concept not in row["instrument_aspects"])
assert len(positive) == n_clips and len(negative) == len(train) - n_clips
```

With pandas, polars and DuckDB, straight from the files:

```python
import pandas

table = pandas.read_parquet("data/default")
print(table.groupby("split")["clap_score"].mean())
```

```python
import polars

tempo = polars.scan_parquet("data/default/*.parquet").explode("tempo_aspects")
print(tempo.group_by("tempo_aspects").len().collect())
```

```python
import duckdb

query = "select split, count(*), avg(duration_s) from 'data/default/*.parquet' group by split"
print(duckdb.sql(query).fetchall())
```

The codes of a clip, as MusicGen wrote them (only with audio; null where a clip has none):

```python
import numpy
import pandas

clip = pandas.read_parquet("data/SMALL-audio").iloc[0]
if clip["codes"] is not None:
    codes = numpy.frombuffer(clip["codes"], dtype="<i2").reshape(clip["codebooks"], -1)
    print(codes.shape)  # (codebooks, frames)
```"""
