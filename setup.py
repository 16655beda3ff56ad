"""Package metadata; tool settings are in pyproject.toml.

static/ and templates/ lie at the top level for people, and inside the dashboard package in a
built wheel. The SQLAlchemy plug-in is part of the product (backend.steering.client) and a package
of its own for applications (query_steering), which its folder's pyproject.toml builds alone.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def requirements() -> list[str]:
    """The run-time requirements, without comments."""
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="pg-autopilot",
    version="0.1.0",
    description="A self-hosted autopilot for PostgreSQL: tunes, proves, keeps or undoes.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    py_modules=["run"],
    packages=[
        *find_packages(include=["backend", "backend.*", "dashboard", "dashboard.*"]),
        "dashboard.static",
        "dashboard.templates",
        "query_steering",
    ],
    package_dir={
        "dashboard.static": "static",
        "dashboard.templates": "templates",
        "query_steering": "backend/steering/client",
    },
    package_data={
        "backend": ["**/*.yaml", "**/*.sql", "**/*.ini", "**/*.mako", "**/*.npz", "**/py.typed"],
        "query_steering": ["py.typed"],
        "dashboard.static": ["**/*"],
        "dashboard.templates": ["**/*"],
    },
    install_requires=requirements(),
    entry_points={
        "console_scripts": ["pg-autopilot=run:main"],
        "sqlalchemy.plugins": ["query_steering=query_steering:QuerySteeringPlugin"],
    },
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Database",
    ],
)
