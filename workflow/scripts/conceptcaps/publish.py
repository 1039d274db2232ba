"""Send the hub folder to the Hugging Face hub, or say what would be sent."""

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetCard, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from conceptcaps import runlog
from conceptcaps.checksums import SUMS, file_sha256, files_of
from conceptcaps.errors import InputError
from conceptcaps.io import write_json


@dataclass(frozen=True)
class Spec:
    """Where the folder goes, and whether it goes at all."""

    repo: str | None  # hub id, namespace/name
    private: bool  # of a repository that does not exist yet
    send: bool  # False: only say what would be sent


def push(folder, *, spec: Spec, report) -> None:
    """Check a hub folder, print what there is to send, and send it where the spec says so.

    The token is read from the environment variable HF_TOKEN, and only to send.

    Args:
        folder: the folder of `hub.export_hub`.
        spec: where it goes.
        report: JSON file: the repository, the files with size and sha256, the commit (null: not
            sent).

    Raises:
        InputError: the folder is damaged or has files that its sums do not know; no repository, no
            token, no network; the hub refuses.
    """
    folder = Path(folder)
    files = _checked(folder)
    card = DatasetCard.load(folder / "README.md", ignore_metadata_errors=False)
    total = sum(entry["bytes"] for entry in files)
    runlog.tell(
        f"{'sending' if spec.send else 'would send'} to {spec.repo or '(push.repo)'}"
        f"{' (private)' if spec.private else ''}: {len(files)} files, {total / 1e6:.1f} MB, "
        f"licence {card.data.license}"
    )
    for entry in files:
        runlog.tell(f"  {entry['bytes']:>12,} {entry['sha256'][:12]} {entry['file']}")
    commit = _send(folder, spec) if spec.send else None
    runlog.tell(f"sent: {commit}" if commit else "Nothing was sent: push.send is false.")
    write_json(
        report,
        {"repo": spec.repo, "private": spec.private, "files": files, "commit": commit},
    )


def _checked(folder: Path) -> list[dict]:
    """Return the files with size and sha256; they must be those of SHA256SUMS."""
    sums_file = folder / SUMS
    if not sums_file.is_file():
        raise InputError(f"{sums_file}: is missing. Make the hub folder first.")
    told = {
        name: digest
        for digest, name in (line.split("  ", 1) for line in sums_file.read_text().splitlines())
    }
    found = files_of(folder)
    strange = sorted(found.keys() ^ told.keys())
    if strange:
        raise InputError(
            f"{folder}: {strange[0]} is in only one of the folder and its {SUMS} ({len(strange)} "
            "such files). Nothing was sent: delete the folder and make it again."
        )
    files = []
    for name, path in sorted(found.items()):
        digest = file_sha256(path)
        if digest != told[name]:
            raise InputError(
                f"{path}: its content is not what {SUMS} says. Nothing was sent: delete the "
                "folder and make it again."
            )
        files.append({"file": name, "bytes": path.stat().st_size, "sha256": digest})
    size = sums_file.stat().st_size
    return [*files, {"file": SUMS, "bytes": size, "sha256": file_sha256(sums_file)}]


def _send(folder: Path, spec: Spec) -> str:
    """Create the repository where it is missing, upload the folder; return the commit's address."""
    token = os.environ.get("HF_TOKEN")
    if spec.repo is None:
        raise InputError("push.repo: is null. Name the repository, as namespace/name.")
    try:
        validate_repo_id(spec.repo)
    except HFValidationError as error:
        raise InputError(f"push.repo: {error}") from error
    if not token:
        raise InputError(
            "HF_TOKEN: is not set. Put a token with write access into this environment variable."
        )
    if constants.HF_HUB_OFFLINE:
        raise InputError("HF_HUB_OFFLINE: is set, so nothing can be sent. Unset it.")
    api = HfApi(token=token)
    try:
        api.create_repo(spec.repo, repo_type="dataset", private=spec.private, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=spec.repo,
            repo_type="dataset",
            ignore_patterns=[".*", "*/.*"],  # see files_of
            commit_message="A build of the ConceptCaps Workflow",
            delete_patterns="*",  # what an earlier build had and this one has not
        )
    except (HfHubHTTPError, OSError) as error:
        raise InputError(
            f"{spec.repo}: the hub did not take it ({type(error).__name__}: {error}). What arrived "
            "is not lost: run it again."
        ) from error
    return commit.commit_url
