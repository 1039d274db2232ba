"""Croissant metadata of the hub folder (MLCommons, version 1.1)."""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import mlcroissant as mlc
from datasets import Audio, List

from conceptcaps.checksums import file_sha256
from conceptcaps.errors import InputError
from conceptcaps.hubfields import AUDIO_FIELDS, TEXT_FIELDS, Field
from conceptcaps.io import write_json

METADATA = "croissant.json"
PARQUET = "application/x-parquet"
TYPES = {  # type of the datasets library -> Croissant's
    "string": mlc.DataType.TEXT,
    "float32": mlc.DataType.FLOAT32,
    "float64": mlc.DataType.FLOAT64,
    "bool": mlc.DataType.BOOL,
    "int16": mlc.DataType.INT16,
    "uint64": mlc.DataType.UINT64,
    "binary": mlc.DataType.TEXT,
}


def write_croissant(
    folder: Path,
    *,
    name: str,
    description: str,
    licence: str,
    citation: str,
    keywords,
    version: str,
) -> None:
    """Write croissant.json over the folder's parquet files, `data/<config>/<split>-*.parquet`.

    Every file is listed with size and sha256; every config is a record set with the fields of
    `conceptcaps.hubfields`, whose column `split` tells the splits apart.

    Raises:
        InputError: mlcroissant finds fault with the metadata.
    """
    files = sorted((folder / "data").rglob("*.parquet"))
    configs = sorted({path.parent.name for path in files})
    context = mlc.Context(conforms_to=["http://mlcommons.org/croissant/1.1"])
    try:
        metadata = mlc.Metadata(
            ctx=context,
            name=name,
            description=description,
            license=[licence],
            cite_as=citation,
            keywords=list(keywords),
            in_language=["en"],
            version=version,
            url=".",
            distribution=[*_files(context, files, folder), *_sets(context, configs)],
            record_sets=[_records(context, config) for config in configs],
        )
    except mlc.ValidationError as error:
        raise InputError(f"{folder / METADATA}: {error}") from error
    write_json(folder / METADATA, json.loads(json.dumps(metadata.to_json(), default=str)))


def _files(context: mlc.Context, files: Iterable[Path], folder: Path) -> list[mlc.FileObject]:
    return [
        mlc.FileObject(
            ctx=context,
            id=path.relative_to(folder).as_posix(),
            name=path.name,
            content_url=path.relative_to(folder).as_posix(),
            content_size=f"{path.stat().st_size} B",
            encoding_formats=[PARQUET],
            sha256=file_sha256(path),
        )
        for path in files
    ]


def _sets(context: mlc.Context, configs: list[str]) -> list[mlc.FileSet]:
    return [
        mlc.FileSet(
            ctx=context,
            id=f"files-{config}",
            name=f"files-{config}",
            includes=[f"data/{config}/*.parquet"],
            encoding_formats=[PARQUET],
        )
        for config in configs
    ]


def _records(context: mlc.Context, config: str) -> mlc.RecordSet:
    fields = AUDIO_FIELDS if config == "audio" or config.endswith("-audio") else TEXT_FIELDS
    return mlc.RecordSet(
        ctx=context,
        id=config,
        name=config,
        key=[f"{config}/id"],
        fields=[_field(context, config, field) for field in fields],
    )


def _field(context: mlc.Context, config: str, field: Field) -> mlc.Field:
    is_list, is_audio = isinstance(field.feature, List), isinstance(field.feature, Audio)
    inner = field.feature.feature if is_list else field.feature
    return mlc.Field(
        ctx=context,
        id=f"{config}/{field.name}",
        name=field.name,
        description=field.content,
        data_types=[mlc.DataType.AUDIO_OBJECT if is_audio else TYPES[inner.dtype]],
        is_array=True if is_list else None,
        array_shape="-1" if is_list else None,
        source=mlc.Source(
            ctx=context,
            file_set=f"files-{config}",
            extract=mlc.Extract(ctx=context, column=field.name),
            transforms=[mlc.Transform(ctx=context, json_path="bytes")] if is_audio else [],
        ),
    )


def check(folder: Path) -> mlc.Dataset:
    """Return the folder's Croissant data set, validated by mlcroissant.

    Raises:
        InputError: the metadata are not valid.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mlc.Dataset(folder / METADATA)
    except mlc.ValidationError as error:
        raise InputError(f"{folder / METADATA}: {error}") from error
