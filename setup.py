"""Builds the optional C extension; everything else about the project is in pyproject.toml.

Where it cannot be built (no compiler, no 128-bit integers) the installation goes on without it, and the fields use
their numpy twin. ``SOTTOVOCE_DEBUG=1`` builds it with its bounds checked at run time.
"""

import os

import numpy as np
from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "mpc._kernels",
            sources=["mpc/_kernels.c"],
            include_dirs=[np.get_include()],
            define_macros=[("SOTTOVOCE_DEBUG", "1")] if os.environ.get("SOTTOVOCE_DEBUG") else [],
            extra_compile_args=[] if os.name == "nt" else ["-O3"],
            optional=True,
        )
    ]
)
