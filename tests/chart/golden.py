"""Writes the golden files anew: `python -m tests.chart.golden`.

Read the difference before you commit it.
"""

from .helm import Helm
from .objects import golden_files

if __name__ == "__main__":
    with Helm() as helm:
        for path, text in golden_files(helm):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
