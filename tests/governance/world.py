"""A small consortium to try things on: three hospitals and a helper."""

import datetime
from dataclasses import dataclass

from parties.governance.cards import PartyCard, make_card
from parties.governance.consortium import Consortium, join
from parties.governance.keys import NodeKey, generate

NOW = datetime.datetime(2030, 6, 1, 12, 0, tzinfo=datetime.UTC)

STUDY = """
format = 1
title = "Readmission after heart failure"
purpose = \"\"\"
To find out which patients come back.
Second line.\"\"\"
consortium = "heart"
contributors = ["north", "city", "south"]
recipients = ["north", "city"]
preprocessing = "dealer"
dealer = "helper"
disclosure = "vantage6"
minimum_parties = 3
deadline = 2030-12-31T18:00:00+01:00
time_limit_seconds = 600

[[columns]]
name = "age"
type = "integer"
unit = "years"
lower = 18
upper = 110

[[columns]]
name = "ldl"
type = "number"
unit = "mmol/l"
lower = 0
upper = 20.5
missing = "drop"

[[columns]]
name = "sex"
type = "category"
categories = ["female", "male"]

[[columns]]
name = "readmitted"
type = "boolean"

[[analyses]]
name = "sums"
protocol = "sum"
columns = ["age", "readmitted"]

[[analyses]]
name = "means"
protocol = "mean"
columns = ["age", "ldl"]

[[analyses]]
name = "spread"
protocol = "variance"
columns = ["ldl"]

[[analyses]]
name = "model"
protocol = "logistic_regression"
outcome = "readmitted"
features = ["age", "ldl", "sex"]
l2 = 1
"""


@dataclass(frozen=True)
class World:
    """Keys, cards and the consortium of them."""

    keys: dict[str, NodeKey]
    cards: dict[str, PartyCard]
    consortium: Consortium


def make_world() -> World:
    keys = {name: generate(name) for name in ("north", "city", "south", "helper")}
    cards = {
        name: make_card(
            key,
            name=name,
            organisation=f"Hospital {name}",
            role="dealer" if name == "helper" else "party",
            address=f"{name}.example:8443",
        )
        for name, key in keys.items()
    }
    return World(keys, cards, join(cards.values(), "heart"))
