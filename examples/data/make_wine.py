"""Makes wine.csv from the data set that scikit-learn ships, and does to it what happens to real files.

The numbers are those of the data set. What is added is only what a first look at a file usually finds: rows
that came twice, values that were not measured, names in several spellings.
"""

import csv
import random
from pathlib import Path

from sklearn.datasets import load_wine

CULTIVARS = ("Barolo", "Grignolino", "Barbera")
SPELLINGS = (str.lower, str.upper, lambda name: f" {name}", lambda name: f"{name} ")


def main():
    """Writes the file; the same at every run."""
    dice = random.Random(178)
    wine = load_wine()
    names = [name.replace("od280/od315_of_diluted_wines", "od280_od315") for name in wine.feature_names]
    rows = [
        [*(f"{value:g}" for value in values), CULTIVARS[target]]
        for values, target in zip(wine.data, wine.target, strict=True)
    ]
    for row in dice.sample(rows, 24):
        row[dice.randrange(len(names))] = ""
    for row in dice.sample(rows, 15):
        row[-1] = dice.choice(SPELLINGS)(row[-1])
    rows += [list(row) for row in dice.sample(rows, 9)]
    dice.shuffle(rows)
    with Path(__file__).with_name("wine.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "cultivar"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
