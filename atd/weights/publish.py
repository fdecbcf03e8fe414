"""Upload a network to a hub repository."""

from __future__ import annotations

import tempfile
from pathlib import Path

from atd.weights import hub
from atd.weights.network import StorableNetwork
from atd.weights.saving import write_weights


def push(
    model: StorableNetwork,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload weights with atd",
) -> str:
    """Upload what `write_weights` writes to the hub repository `repo_id` and return the commit's URL.

    Args:
        model: the network.
        repo_id: "org/repo"; made if need be.
        private: make a new repository private.
        token: of the hub; the one in HF_TOKEN or of the login by default.
        commit_message: of the upload.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.endpoint(), token=token)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(model, Path(folder))
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message).commit_url)
