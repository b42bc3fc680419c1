"Read settings.ini, where the package is described, and put the faces and a trained network into the wheel."

from configparser import ConfigParser
from pathlib import Path
from shutil import copytree, rmtree

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
EXTRAS = ("dev", "cluster", "docs", "study", "build", "photo-train", "heic", "onnx")
SHARED = ("data", "results/photo")  # to mrl/share, which is mrl.io.files.ROOT in a wheel


class build_with_data(build_py):
    "Copy modules and the folders of `SHARED`; remove what an earlier build left, since modules move."

    def run(self):
        package = Path(self.build_lib, "mrl")
        if not self.editable_mode:
            rmtree(package, ignore_errors=True)
        super().run()
        if not self.editable_mode:
            for folder in SHARED:
                copytree(here / folder, package / "share" / folder)


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
    package_data={"mrl": ["py.typed"]},
    install_requires=settings["requirements"].split(),
    extras_require={name: settings[f"{name}_requirements"].split() for name in EXTRAS},
    cmdclass={"build_py": build_with_data},
)
