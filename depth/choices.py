"""What can be chosen by name: colour maps and output formats.

Imports nothing, so that a command line knows it at once.
"""

from __future__ import annotations

# Colours from far to near at equal steps, hex RGB. inferno, magma, plasma and viridis are by Nathaniel
# Smith and Stéfan van der Walt (matplotlib, CC0); turbo by Anton Mikhailov (Google, Apache-2.0); spectral
# by Cynthia Brewer (ColorBrewer, Apache-2.0), red near. 33 steps stay within 3/255 of the full tables.
ANCHORS = {
    "inferno": (
        "0000040403120b0724150b37210c4a2e0a5a3c09654a0c6b57106d63146e70196e"
        "7d1e6d89226a962766a32b61af315cbb3755c63e4dd14644db4f3be35932eb6528"
        "f1711ef67f14f98d0afb9c06fcab0ffbba1ff9ca32f5d949f2e865f3f586fcffa4"
    ),
    "magma": (
        "0000040303110a0822130d331d114628115a36106a430f7650127c5d177f691c81"
        "7621818226818f2a819c2e7fa9327db63779c33b75cf4170db486ae65163ee5c5e"
        "f5695cf9785dfb8761fd9668fea571feb47bfec387fed194fde0a2fceeb0fcfdbf"
    ),
    "plasma": (
        "0d08872206903105963f049c4c02a15901a56600a77201a87e03a88909a69511a2"
        "9f1a9ca92396b22c8ebb3587c33e80cb4778d25071d9596ae06263e66c5ceb7555"
        "f07f4ff48a48f89441fb9f3afdab33feb72dfdc328fcd025f9dd25f5eb27f0f921"
    ),
    "viridis": (
        "440154470d6048186a482374472d7b4536814240863f49893b528b375a8d33638d"
        "2f6a8e2c728e297a8e26818e23898e21908c1f988b1f9f8821a68528ae8031b57b"
        "3ebc744cc26c5dc9636ece5882d34c96d83fabdc32c0df24d5e21aeae51afde725"
    ),
    "turbo": (
        "30123b392a734040a14456c7466be3467ff64293ff37a7fa29bbec1dcdd818dcc3"
        "1ee8b031f2994cf97e6bfd648aff4da3fd3cb8f735cced34dee037edd03af8c03a"
        "fdae35fe982cfb8022f56817ec520fe04009d23105c02302ac1701950d017a0403"
    ),
    "spectral": "5e4fa23288bd66c2a5abdda4e6f598ffffbffee08bfdae61f46d43d53e4f9e0142",
    "gray": "000000ffffff",
}
COLORMAPS = tuple(ANCHORS)

# How the files of each output format end; `outputs.py` writes them.
ENDINGS = {"png16": "_depth16.png", "npy": "_depth.npy", "pfm": "_depth.pfm", "png": "_depth.png"}
