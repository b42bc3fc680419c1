"Reads settings.ini, the one place where the package is described."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    keywords=settings["keywords"],
    license="Apache-2.0",
    python_requires=f">={settings['min_python']}",
    packages=find_packages(include=["mrl", "mrl.*"]),
    install_requires=settings["requirements"].split(),
    extras_require={"build": ["anny==0.6.2"]},  # only nbs/build_faces.ipynb needs it
)
