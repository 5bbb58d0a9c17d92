"""The pages of the keys of recipes, sweeps and studies."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel

from reference.docstrings import meanings, summary
from reference.registered import parameters
from reference.tables import Option, code, table
from reference.words import type_words

RECIPE = """# Keys of a recipe

A recipe is a YAML file that describes one training run: `sightline train recipe.yaml`. [Recipes and runs](../how-to/recipes.md)
has examples. Change a key on the command line by its dotted name:

```bash
sightline train recipe.yaml optimizer.name=sgd stages.0.epochs=2
```

`data` takes the options of its [dataset](datasets.md), and `guide` those of its [guide](guides.md). This page is generated from
the code.
"""
SWEEP = """# Keys of a sweep

A sweep is a hyperparameter search: a YAML file that trains one recipe with many values of its keys.
`sightline sweep sweep.yaml` runs it. [Hyperparameter search](../how-to/sweep.md) has examples.
This page is generated from the code.
"""
STUDY = """# Keys of a study

A study is a YAML file that describes one table or figure. `kind` names the kind of study, which decides the other keys.
This page is generated from the code. [Studies](../how-to/reproduce.md) has examples.
"""


def recipe_keys() -> str:
    """Return the page of the keys of a recipe."""
    from sightline.data.transforms import train_transform
    from sightline.runs.recipe import Recipe
    from sightline.training.loggers import MLflowLogger, WandbLogger

    augment = [option for option in parameters(train_transform) if option.name != "size"]
    loggers = [(name, kind) for name, kind in (("wandb", WandbLogger), ("mlflow", MLflowLogger))]
    return "\n".join(
        [
            RECIPE,
            *_sections([Recipe]),
            f"## augment\n\nThe options of the key `augment`.\n\n{table(augment)}\n",
            *(f"## loggers: {name}\n\n{summary(kind)}\n\n{table(parameters(kind))}\n" for name, kind in loggers),
        ]
    )


def sweep_keys() -> str:
    """Return the page of the keys of a sweep."""
    from sightline.runs.recipe import Recipe
    from sightline.sweeping.axes import Range
    from sightline.sweeping.document import Sweep

    return "\n".join([SWEEP, *_sections([Sweep, Range], elsewhere={Recipe: "recipe-keys.md"})])


def study_keys() -> str:
    """Return the page of the keys of every kind of study, step and output."""
    return "\n".join([STUDY, *_sections(study_documents())])


def study_documents() -> dict[str, Any]:
    """Return the schema of every kind of study, step and output by its heading."""
    from sightline.experiments.outputs.base import OUTPUTS
    from sightline.experiments.steps.base import STEPS
    from sightline.studies.study import KINDS

    found = {}
    for title, registry in (("kind", KINDS), ("step", STEPS), ("output", OUTPUTS)):
        found |= {f"{title}: {entry.name}": entry.factory for entry in registry}
    return found


def fields(schema: type[BaseModel]) -> list[Option]:
    """Return the keys of a part of a document."""
    known = meanings(schema)
    found = []
    for name, field in schema.model_fields.items():
        if field.is_required():
            default = "required"
        elif field.default_factory is not None:
            default = _default(field.default_factory())  # type: ignore[call-arg]
        else:
            default = _default(field.default)
        found.append(Option(name, type_words(field), default, known.get(name, "")))
    return found


def parts(schemas: Iterable[type[BaseModel]], elsewhere: Iterable[type[BaseModel]] = ()) -> list[type[BaseModel]]:
    """Return the given schemas and all parts within them, each once and in the order of reading."""
    found: list[type[BaseModel]] = []

    def visit(schema: type[BaseModel]) -> None:
        if schema not in found and schema not in elsewhere:
            found.append(schema)
            for field in schema.model_fields.values():
                for inner in _models(field.annotation):
                    visit(inner)

    for schema in schemas:
        visit(schema)
    return found


def _sections(
    schemas: dict[str, type[BaseModel]] | list[type[BaseModel]], elsewhere: dict[type[BaseModel], str] | None = None
) -> Iterator[str]:
    titled = schemas if isinstance(schemas, dict) else {schema.__name__: schema for schema in schemas}
    titles = {schema: title for title, schema in titled.items()}
    given = list(titled.values())
    for schema in [*given, *(part for part in parts(given, elsewhere or ()) if part not in given)]:
        body = f"## {titles.get(schema, schema.__name__)}\n\n{summary(schema)}\n\n{table(fields(schema))}\n"
        for other, page in (elsewhere or {}).items():
            body = body.replace(f"(#{other.__name__.lower()})", f"({page})")
        yield body


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel) and not inspect.isabstract(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        given = value.model_dump(mode="json", exclude_defaults=True)
        return code(given) if given else "all defaults"
    return "none" if value in ([], {}) else code(value)
