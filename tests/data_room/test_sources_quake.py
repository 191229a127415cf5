"""The readers of collections in id Software's formats (md2, md3) on tiny packages: orientation, skins, shaders, clips."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import source_files as write
from test_sources_collections import COPYRIGHT, read, sign_reads

from bozzetto.data.sources.openarena import CLIPS, parse_animations, parse_shaders, parse_skin
from bozzetto.data.sources.ufoai import parse_clips

# UFO: Alien Invasion

# md2 and md3: x forward, y left, z up; the viewer of a sign that faces +x has +y on the right. Clockwise.
QUAKE_SIGN = write.sign(1, 2)
QUAKE_FACES = write.FACES[:, ::-1]


@pytest.fixture
def ufo(tmp_path):
    still = QUAKE_SIGN[None]
    model = write.md2(np.stack([QUAKE_SIGN, QUAKE_SIGN + 1, QUAKE_SIGN + 2]), QUAKE_FACES, write.UVS_TOP, ".spider")
    write.archive(
        tmp_path / "ufoai-data/usr/share/games/ufoai/base/0models.pk3",
        {
            "models/aliens/spider/spider.md2": model,
            "models/aliens/spider/spider.png": write.picture(),
            "models/aliens/spider/spider.anm": "// name start end fps\nwalk0 1 2 50\nwalk1 1 2 50\nstand0 0 1 10\nlate 2 9 10\n",
            "models/aliens/spider/head01.md2": write.md2(still, QUAKE_FACES, write.UVS_TOP),
            "models/soldiers/female/body.md2": model,
            "models/objects/bigBox/box.md2": write.md2(still, QUAKE_FACES, write.UVS_TOP, "models/objects/bigBox/wood"),
            "models/objects/bigBox/wood.jpg": write.picture(format="JPEG"),
            "models/objects/cut.md2": model[:100],
        },
    )
    notes = COPYRIGHT.format("base/models/objects/bigBox/*")
    write.folder(tmp_path, {"ufoai-data/usr/share/doc/ufoai-data/copyright": notes})
    return tmp_path


def test_ufo(ufo, caplog):
    objects = read("ufoai", ufo)
    assert set(objects) == {"models/aliens/spider/spider", "models/objects/bigbox/box"}
    assert "models/objects/cut.md2 cannot be read" in caplog.text
    box, spider = objects["models/objects/bigbox/box"], objects["models/aliens/spider/spider"]
    sign_reads(box.parts[0])
    assert box.licence == "CC-BY-SA-3.0" and len(box.textures) == 1 and box.clips == []
    assert spider.licence == "GPL-3+" and len(spider.textures) == 1
    assert [(c.name, c.fps, len(c.positions[0])) for c in spider.clips] == [("stand", 10, 2), ("walk", 50, 2)]
    assert np.allclose(spider.clips[1].positions[0][0], spider.parts[0].vertices + 1, atol=0.05)


def test_clip_lists():
    assert parse_clips("walk0 0 9 30\nbad\nx a b c\nrun_rifle1 3 5 20 // no\n") == [
        ("walk", 0, 9, 30),
        ("run rifle", 3, 5, 20),
    ]


# OpenArena

PAK = "usr/share/games/openarena/baseoa/"
PLAYER = "models/players/bot/"
SHADER = f"""botShader
{{
  cull none
  {{
    map $lightmap
  }}
  {{
    map {PLAYER}RED.tga
    alphaFunc GE128
  }}
}}
"""


def animation_cfg() -> str:
    """Clips in the standard order: frame 0 of each part stands, frame 1 moves."""
    rows = ["0 2 0 25", "1 1 0 25"] * 3 + ["0 2 0 10"] + ["0 1 0 10"] * 6
    return "sex m\n" + "\n".join(rows + ["0 1 1 20"] * (len(CLIPS) - len(rows))) + "\n"


@pytest.fixture
def arena(tmp_path):
    def part(tags=(), move=(0.0, 0.0, 0.0)):
        return write.md3(np.stack([QUAKE_SIGN, QUAKE_SIGN + move]), QUAKE_FACES, write.UVS_TOP, "b_part", tags)

    raised = np.eye(3)
    files = {
        PLAYER + "lower.md3": part([("tag_torso", [((0, 0, 2), raised), ((0, 0, 1), raised)])]),
        PLAYER + "upper.md3": part([("tag_head", [((0, 0, 2), raised)] * 2)]),
        PLAYER + "head.md3": part(),
        PLAYER + "animation.cfg": animation_cfg(),
        PLAYER + "red.tga": write.picture(format="TGA"),
    }
    for name in ("lower", "upper", "head"):
        files[f"{PLAYER}{name}_default.skin"] = f"b_part,{PLAYER}red.tga\r\ntag_head,"
    for name in ("lower", "upper", "head"):
        files[f"{PLAYER}{name}_glow.skin"] = "b_part,botShader"
    files[PLAYER + "lower_gone.skin"] = "b_part,models/gone.tga"
    write.archive(tmp_path / "one" / PAK / "pak0.pk3", files)
    later = {
        "scripts/bot.shader": SHADER,
        "models/players/torso/lower.md3": part(),
        "models/players/torso/lower_default.skin": "",
    }
    write.archive(tmp_path / "two" / PAK / "pak6.pk3", later)
    return tmp_path


def test_open_arena(arena, caplog):
    with caplog.at_level(logging.INFO, "bozzetto.data.sources"):
        objects = read("openarena", arena)
    assert set(objects) == {"bot/default", "bot/glow"} and {o.group for o in objects.values()} == {"bot"}
    assert "torso/default left out: upper.md3" in caplog.text and "bot/gone left out" in caplog.text
    bot = objects["bot/default"]
    for number, part in enumerate(bot.parts):
        sign_reads(part)
        assert part.vertices[:, 1].min() == pytest.approx(2 * number)  # legs, torso, head stand on each other
    assert len(objects["bot/glow"].textures) == 1  # through a shader of another package
    assert [c.name for c in bot.clips] == ["death", "death", "death", "gesture"]
    death, gesture = bot.clips[0], bot.clips[3]
    assert [p[1, :, 1].min() for p in death.positions] == pytest.approx(
        [0, 1, 3]
    )  # the torso sinks, and the head with it
    assert [p[1, :, 1].min() for p in gesture.positions] == pytest.approx([0, 2, 4])  # the legs stand still


def test_leg_clips_lose_the_torsos_frames():
    rows = [(i, 1, 0, 10) for i in range(6)] + [(90 + 10 * i, 10, 0, 10) for i in range(7)]
    rows += [(160 + 10 * i, 10, 10, 10) for i in range(12)]
    text = "\n".join(" ".join(map(str, r)) + " // X" for r in rows)
    found = parse_animations(text)
    assert found[6] == (90, 10, 10) and found[13] == (90, 10, 10) and found[14] == (100, 10, 10)
    rows[17] = (193, 10, 10, 10)  # begins inside the clip before it
    shifted = parse_animations("\n".join(" ".join(map(str, r)) for r in rows))
    assert shifted[17] == (130, 10, 10)


def test_skins_and_shaders():
    assert parse_skin("U_Body,models/a.tga\r\ntag_head,\nnothing") == {"u_body": "models/a.tga", "tag_head": ""}
    first = "a\n{\n{\nmap textures/effects/env.tga\n}\n{\nclampMap b.tga\n}\n}\n"
    shaders = parse_shaders(first + "C\n{\n{\nmap d.tga\nalphaFunc GE128\n}\n}")
    assert shaders["a"].picture == "b.tga" and not shaders["a"].cuts and shaders["c"].cuts
