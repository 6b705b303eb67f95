"""Layouts of data sets on disk: which folder level is the identity, the type, the view.

A layout is a list of rules, patterns of the path from the root to the folder of one walk. Facts of
the public data sets are those of their papers and of OpenGait's documentation
(https://github.com/ShiqiYu/OpenGait); what is not a rule there stands in a partition file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = [
    "LAYOUTS",
    "Layout",
    "Place",
    "Rule",
    "detect_layout",
    "find_layout",
    "names_people",
    "refuse_tree",
]

_FIELDS = ("identity", "type", "view", "split")
# Names of folders that are a camera or a part of a data set, never a person.
_NO_PERSON = re.compile(
    r"silhouette_\d{3}-\d{2}|train|training|test|testing|val|valid|validation|gallery|probe|query"
    r"|distractor|(cam|camera|view|angle)[-_]?\d+",
    re.IGNORECASE,
)


class LayoutError(ValueError):
    """A tree that stands otherwise than was said, or in which nobody is a person."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a path says of one walk.

    Args:
        identity: Who walks; ``None`` = the publishers keep it to themselves.
        type: Clothing, bag, session; ``""`` = not said.
        view: Camera or angle; ``""`` = not said.
        split: Part of the data set that the folders name; ``""`` = they name none.
        modality: Folder above all others that names a modality; ``""`` = there is none.
    """

    identity: str | None
    type: str
    view: str
    split: str = ""
    modality: str = ""


@dataclass(frozen=True)
class Rule:
    """A pattern of paths and what its groups mean.

    Args:
        pattern: Of the whole path, forward slashes. Groups are named ``identity``, ``type``,
            ``view``, ``split`` and ``modality``; all may be left out.
        identity: Template of the identity with the groups' names; ``None`` = unknown.
        type: Template of the type; ``#`` = the walk's number among those of the person, two digits.
        view: Template of the view.
        split: Template of the split.
    """

    pattern: str
    identity: str | None = "{identity}"
    type: str = "{type}"
    view: str = "{view}"
    split: str = "{split}"

    def read(self, path: str) -> Place | None:
        """What a path says; ``None`` = it is of another kind.

        Args:
            path: From the root to the folder of a walk, forward slashes.

        Example:
            >>> Rule("(?P<identity>[^/]+)/(?P<view>[0-9]+)").read("ann/090")
            Place(identity='ann', type='', view='090', split='', modality='')
        """
        match = re.fullmatch(self.pattern, path)
        if match is None:
            return None
        groups = {**dict.fromkeys((*_FIELDS, "modality"), ""), **match.groupdict("")}
        identity = None if self.identity is None else self.identity.format(**groups)
        return Place(
            identity,
            self.type.format(**groups),
            self.view.format(**groups),
            self.split.format(**groups),
            groups["modality"],
        )


@dataclass(frozen=True)
class Layout:
    """How the folders of a data set stand.

    Args:
        name: As in ``GaitDataset(root, layout=...)``.
        rules: The first that fits a path counts.
        example: A path, for messages.
        is_official: Whether its folders are named so that nothing else looks like it.

    Example:
        >>> LAYOUTS["oumvlp"].read("Silhouette_090-01/00002")
        Place(identity='00002', type='01', view='090', split='', modality='')
    """

    name: str
    rules: tuple[Rule, ...]
    example: str
    is_official: bool = True

    def read(self, path: str) -> Place | None:
        """What a path says of a walk; ``None`` = it is not of this layout.

        Args:
            path: From the root to the folder of a walk, forward slashes.
        """
        return next((place for rule in self.rules if (place := rule.read(path))), None)


_ABOVE = "(?:(?P<modality>[^/]+)/)?"  # 2D_Silhouettes, CCPG_G_SIL
_VIDEO = "(?P<view>[^/]+)"


def _table(*layouts: Layout) -> Mapping[str, Layout]:
    return {layout.name: layout for layout in layouts}


# CASIA-B: http://www.cbsr.ia.ac.cn/english/Gait%20Databases.asp; OU-MVLP:
# https://doi.org/10.1186/s41074-018-0039-6; GREW: https://www.grew-benchmark.org; Gait3D:
# https://arxiv.org/abs/2204.02569; CCPG: Li et al., CVPR 2023; SUSTech1K:
# https://arxiv.org/abs/2211.10598; CASIA-E: Song et al., TPAMI 2022; CCGR:
# https://arxiv.org/abs/2312.14404.
LAYOUTS: Mapping[str, Layout] = _table(
    Layout(
        "casiab",
        (Rule(r"(?P<identity>\d{3})/(?P<type>(?:nm|bg|cl)-\d{2})/(?P<view>\d{3})"),),
        "001/nm-01/090/*.png",
    ),
    Layout(
        "oumvlp",
        (
            Rule(r"Silhouette_(?P<view>\d{3})-(?P<type>\d{2})/(?P<identity>\d{5})"),
            Rule(r"(?P<identity>\d{5})/(?P<type>0[01])/(?P<view>\d{3})"),
        ),
        "Silhouette_090-00/00001/*.png",
    ),
    Layout(
        "grew",
        (
            # People of different parts have the same numbers; OpenGait's names tell them apart.
            Rule(rf"train/(?P<identity>\d{{5}})/{_VIDEO}", "{identity}train", "00", split="train"),
            Rule(rf"(?:test/)?gallery/(?P<identity>\d{{5}})/{_VIDEO}", type="#", split="gallery"),
            Rule(rf"(?:test/)?probe/{_VIDEO}", None, "03", split="probe"),
            Rule(
                rf"distractor/(?P<identity>\d{{5}})/{_VIDEO}",
                "{identity}distractor",
                "02",
                split="distractor",
            ),
            Rule(rf"(?P<identity>\d{{5}}train)/(?P<type>00)/{_VIDEO}", split="train"),
            Rule(rf"(?P<identity>\d{{5}})/(?P<type>0[12])/{_VIDEO}", split="gallery"),
            Rule(rf"probe/(?P<type>03)/{_VIDEO}", None, split="probe"),
            Rule(rf"(?P<identity>\d{{5}}distractor)/(?P<type>02)/{_VIDEO}", split="distractor"),
        ),
        "train/00001/4XPn5Z28/*.png, test/gallery/00001/..., test/probe/...",
    ),
    Layout(
        "gait3d",
        (Rule(rf"{_ABOVE}(?P<identity>\d{{4}})/(?P<type>camid\d+_videoid\d+)/(?P<view>seq\d+)"),),
        "2D_Silhouettes/0000/camid0_videoid2/seq0/*.png",
    ),
    Layout(
        "ccpg",
        (Rule(rf"{_ABOVE}(?P<identity>\d{{3}})/(?P<type>U\d+_D\d+(?:_BG)?)/{_VIDEO}"),),
        "CCPG_G_SIL/001/U0_D0_BG/01_0/*.png",
    ),
    Layout(
        "sustech1k",
        (
            Rule(
                rf"{_ABOVE}(?P<identity>\d{{4}})/(?P<type>\d{{2}}-[a-z]{{2}}(?:[-_][a-z]{{2}})*)"
                rf"/(?P<view>\d{{3}}(?:-[a-z]+)?)"
            ),
        ),
        "0000/00-nm/090/06-090-Camera-Sils_aligned.pkl",
    ),
    Layout(
        "casiae",
        (
            Rule(
                r"(?P<identity>\d{3,4})/(?P<type>[HL]-scene\d(?:_s)?-(?:nm|bg|cl)-\d)"
                r"/(?P<view>\d{3})"
            ),
        ),
        "001/H-scene1-nm-1/090/*.png",
    ),
    Layout(
        "ccgr",
        (Rule(r"(?P<identity>\d{1,3})/(?P<type>[^/]+)/(?P<view>[^/]+)"),),
        "1/NM1/10_3/*.png",
        is_official=False,
    ),
    Layout(
        "opengait",
        (Rule(r"(?P<identity>[^/]+)/(?P<type>[^/]+)/(?P<view>[^/]+)"),),
        "id/type/view/view.pkl",
        is_official=False,
    ),
    Layout(
        "folders",
        (Rule(r"(?P<identity>[^/]+)/(?P<type>.+)"), Rule(r"(?P<identity>[^/]+)")),
        "id/sequence/*.png, id/sequence.gif",
        is_official=False,
    ),
)
"""Name of every layout to the layout, the most telling first."""


def find_layout(name: str) -> Layout:
    """A layout by its name, or made of a pattern.

    Args:
        name: Key of ``LAYOUTS``, or a path with ``{identity}`` and perhaps ``{type}``, ``{view}``,
            ``{split}`` or ``{}`` (anything), for example ``"cam_{view}/{identity}/{type}"``.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> find_layout("cam_{view}/{identity}").read("cam_3/ann").identity
        'ann'
    """
    if name in LAYOUTS:
        return LAYOUTS[name]
    fields = re.findall(r"\{(.*?)\}", name)
    named = [field for field in fields if field]
    if "identity" in named and set(named) <= {*_FIELDS} and len(set(named)) == len(named):
        pattern = ""
        for text, field in zip(re.split(r"\{.*?\}", name), [*fields, None], strict=True):
            pattern += re.escape(text.strip("\n"))
            if field is not None:
                pattern += f"(?P<{field}>[^/]+?)" if field else "[^/]+?"
        return Layout(name, (Rule(pattern),), name)
    raise ValueError(
        f"expected a layout among {', '.join(LAYOUTS)}, or a path with {{identity}} and perhaps "
        f"{', '.join(f'{{{field}}}' for field in _FIELDS[1:])} (once each), got {name!r}"
    )


def level_layout(level: int) -> Layout:
    """The layout in which people are a certain level of folders.

    Args:
        level: 1 = the folders in the root, 2 = those below, and so on.

    Example:
        >>> level_layout(2).read("train/ann/monday")
        Place(identity='ann', type='monday', view='', split='train', modality='')
    """
    if type(level) is not int or level < 1:
        raise ValueError(f"expected a level of 1 or more, got {level!r}")
    above = "/".join(["[^/]+"] * (level - 1))
    start = f"(?P<split>{above})/" if above else ""
    rule = Rule(f"{start}(?P<identity>[^/]+)(?:/(?P<type>.+))?")
    return Layout(f"identity level {level}", (rule,), "level/" * (level - 1) + "identity/...")


def detect_layout(paths: Iterable[str]) -> Layout | None:
    """The layout that all paths fit.

    Args:
        paths: From the root to the folders of walks, forward slashes.

    Returns:
        The most telling one; ``None`` if no layout fits, or only one by which views or splits
        would be people.

    Example:
        >>> detect_layout(["001/nm-01/090", "001/cl-02/000"]).name
        'casiab'
        >>> detect_layout(["train/ann", "test/bob"]) is None
        True
    """
    paths = list(paths)
    for layout in LAYOUTS.values():
        if layout.name == "ccgr":
            continue  # numbers alone tell nothing; its identities are those of "opengait"
        if not paths or any(layout.read(path) is None for path in paths):
            continue
        if layout.is_official or names_people(paths):
            return layout
    return None


def names_people(paths: Iterable[str]) -> bool:
    """Whether the first level may be people: no name of it is a view's or a split's.

    Args:
        paths: From the root to the folders of walks, forward slashes.

    Example:
        >>> names_people(["ann/monday"]), names_people(["Silhouette_090-00/00001"])
        (True, False)
    """
    return not any(_NO_PERSON.fullmatch(path.partition("/")[0]) for path in paths)


def refuse_tree(paths: Iterable[str], root: object, wanted: Layout | None) -> LayoutError:
    """An error that says what was found in a tree, and what it looks like.

    Args:
        paths: From the root to the folders of walks.
        root: For the message.
        wanted: The layout that was said; ``None`` = none, and none was recognised.
    """
    paths = list(paths)
    said = "people" if wanted is None else f"the layout {wanted.name} ({wanted.example})"
    strange = [path for path in paths if wanted is None or wanted.read(path) is None]
    alike = detect_layout(paths)
    inner = _below(paths)
    if alike is not None and (alike.is_official or (wanted is not None and inner is None)):
        hint = f"it looks like layout {alike.name!r} ({alike.example})"
    elif inner is not None:
        hint = f"{inner[0]} looks like layout {inner[1].name!r}: give that folder"
    elif not names_people(paths):
        hint = (
            "the first level names views or splits, not people; say what each level is, for "
            'example layout="{split}/{identity}/{type}"'
        )
    else:
        hint = (
            f"known layouts: {', '.join(LAYOUTS)}; or say what each level is, for example "
            'layout="{identity}/{view}"'
        )
    some = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
    return LayoutError(
        f"expected {said} in {root}, got {len(strange)} of {len(paths)} sequence(s) elsewhere "
        f"({some}); {hint}"
    )


def _below(paths: list[str]) -> tuple[str, Layout] | None:
    """A folder that holds everything, if what is below it is of an official layout."""
    above: list[str] = []
    while paths and all("/" in path for path in paths):
        tops = {path.partition("/")[0] for path in paths}
        if len(tops) > 1:
            return None
        above.append(*tops)
        paths = [path.partition("/")[2] for path in paths]
        layout = detect_layout(paths)
        if layout is not None and layout.is_official:
            return "/".join(above), layout
    return None
