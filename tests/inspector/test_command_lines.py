"""Commands to be copied: what the command line itself makes of them."""

import shlex

import pytest

from inspector.command_lines import only_stage, part_again

RECORDED = "tally run --dataset 'my shop' --preset micro --sku tea oats --from compose --to render --name first"


def options_of(command):
    """The options of a command line with their values, as the command line reads them; each may stand once."""
    found = {}
    for word in shlex.split(command)[2:]:
        if word.startswith("--"):
            assert word not in found
            found[word] = []
        else:
            list(found.values())[-1].append(word)
    return found


@pytest.mark.parametrize("sku", ["tea", "tea; rm -rf $HOME", "Müsli 'extra'"])
def test_part_again__of_one_product_names_everything_once(sku):
    told = options_of(part_again(RECORDED, stage="prune", sku=sku, name="first-tea"))
    assert told["--sku"] == [sku] and told["--name"] == ["first-tea"] and told["--from"] == ["prune"]
    assert told["--dataset"] == ["my shop"] and "--to" not in told


def test_part_again__of_nothing_is_the_command_itself():
    assert part_again(RECORDED, stage="", sku="", name="first") == RECORDED
    assert part_again("", stage="", sku="", name="first") == "tally run"


def test_only_stage__takes_the_place_of_another_part():
    told = options_of(only_stage(RECORDED, "prune"))
    assert told["--only"] == ["prune"] and not {"--from", "--to"} & set(told)
    assert told["--name"] == ["first"]
