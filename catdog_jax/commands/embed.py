"""`catdog embed`: photos to vectors, by a model file."""

import numpy as np

from catdog_jax.config import EmbedConfig
from catdog_jax.console import progress_bar, quiet, say
from catdog_jax.errors import CatdogError
from catdog_jax.photos import decoding
from catdog_jax.runtime import embeddings
from catdog_jax.runtime.arguments import opened
from catdog_jax.runtime.embeddings import Embeddings
from catdog_jax.runtime.inputs import digest, find_photos, named


def embed(config: EmbedConfig) -> int:
    """Writes the averaged features of photos, and a list of which row is which photo.

    Returns:
      The exit status: 0, or 1 if a photo could not be read (it is listed with the reason).

    Raises:
      CatdogError: there are no photos, none can be read, a file cannot be written, or the model
        cannot be used; nothing is written then.
      UsageError: a setting is out of range, or a path is a URL.
    """
    with quiet(config.quiet):
        listed = embeddings.list_of(config.out)
        photos = find_photos(config.paths, config.list, config.null)
        predictor = opened(config)
        ids: list[str] = []
        hashes: list[str | None] = []
        rows: list[np.ndarray] = []
        skipped: list[dict[str, str]] = []
        with progress_bar("photos") as progress:
            task = progress.add_task("embed", total=len(photos))
            for photo, row in predictor.stream_embeddings(photos):
                if isinstance(row, decoding.ImageError):
                    skipped.append({"id": named(photo), "reason": str(row)})
                    say(f"{named(photo)}: {row}", "red")
                else:
                    ids.append(named(photo))
                    hashes.append(digest(photo))
                    rows.append(row)
                progress.advance(task)
        if not rows:
            raise CatdogError(
                f"expected photos that can be decoded, found none of {len(photos):,}. Nothing was written."
            )
        about = predictor.metadata
        embedded = Embeddings(
            np.stack(rows),
            ids,
            about.get("weights_sha256"),
            about.get("precision", "fp32"),
            hashes=hashes,
            skipped=skipped,
            recipe=predictor.recipe,
        )
        embeddings.save(config.out, embedded)
        say(
            f"{config.out}: {len(rows):,} photos of {len(rows[0])} columns on {predictor.device}, {len(skipped):,} unreadable; "
            f"ids in {listed}"
        )
        return 1 if skipped else 0
