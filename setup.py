"""Builds the optional C extensions; everything else about the project is in pyproject.toml.

Where they cannot be built (no compiler, no 128-bit integers) the installation goes on without them, and the fields,
oblivious transfer and lattices use their numpy twins. ``SOTTOVOCE_DEBUG=1`` builds them with run-time bounds checks.
"""

import os

import numpy as np
from setuptools import Extension, setup

DEBUG = bool(os.environ.get("SOTTOVOCE_DEBUG"))

setup(
    ext_modules=[
        Extension(
            f"mpc.{name}",
            sources=[f"mpc/{name}.c"],
            include_dirs=[np.get_include()],
            define_macros=[("SOTTOVOCE_DEBUG", "1")] if DEBUG else [],
            extra_compile_args=[] if os.name == "nt" else ["-O1" if DEBUG else "-O3", "-fwrapv"],
            optional=True,
        )
        for name in ("_kernels", "_lattice", "_transfers")
    ]
)
