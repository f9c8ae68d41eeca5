"""How the wheel and the sdist differ from the repository: the published model comes along, and README's links work elsewhere.

Hatchling finds the two hooks by the sections `tool.hatch.build.hooks.custom` and
`tool.hatch.metadata.hooks.custom` of pyproject.toml; the latter has the repository's address.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

# The one copy in the repository -> its place in the package, whose name says nothing of the content
MODEL, PACKAGED = "artifacts/default/model-int8.onnx", "catdog_jax/published/model.onnx"
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
# A picture that is a paragraph, and the paragraph in italics behind it
_PICTURE = re.compile(r"^!\[[^\]]*\]\((?![a-z]+:)[^)\s]+\)\n\n(?:\*[^*]+\*\n\n)?", re.MULTILINE)


class Model(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the published model into the wheel. An editable installation has the repository's own file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by Hatchling before it collects files; `version` is "editable" or "standard"."""
        if self.target_name != "wheel" or version == "editable":
            return
        model = Path(self.root, MODEL)
        if not model.is_file():
            raise FileNotFoundError(f"{model}: expected the published model for the wheel, found no file. Restore it.")
        build_data["force_include"][str(model)] = PACKAGED


class Readme(MetadataHookInterface):
    """Gives the package README as its description, and its addresses, where that of the repository is known."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by Hatchling with the table `project` of pyproject.toml."""
        repository = self.config.get("repository", "").rstrip("/")
        version = _VERSION.search(Path(self.root, "catdog_jax/__init__.py").read_text(encoding="utf-8"))
        if version is None:
            raise ValueError('catdog_jax/__init__.py: expected a line __version__ = "…", found none.')
        tag = f"v{version[1]}"
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_an_index(text, repository, tag)}
        metadata["urls"] = addresses(repository, tag)


def addresses(repository: str, tag: str) -> dict[str, str]:
    """What a package index shows beside the description; nothing where the repository's address is not known."""
    if not repository:
        return {}
    return {
        "Repository": repository,
        "Documentation": f"{repository}/blob/{tag}/README.md#where-to-read-on",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def for_an_index(text: str, repository: str, tag: str) -> str:
    """README as a package index can show it, which has none of the files that it links to.

    Links and pictures get the address of the file in the repository at the tag of the version, as
    GitHub, GitLab and Gitea have them. Where the repository's address is not known, a link becomes
    its text, and a picture is left out with its caption.
    """

    def elsewhere(link: re.Match[str]) -> str:
        picture, said, target = link.groups()
        if not repository:
            return "" if picture else said
        return f"{picture}[{said}]({repository}/{'raw' if picture else 'blob'}/{tag}/{target})"

    parts = _FENCED.split(text)  # every second is code
    for place in range(0, len(parts), 2):
        prose = parts[place] if repository else _PICTURE.sub("", parts[place])
        parts[place] = _LINK.sub(elsewhere, prose)
    return "".join(parts)
