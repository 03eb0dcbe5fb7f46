"""MODEL:SCHEME on a command line, as the names that matrices use. Imports hardware and scenario in the function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simroute.scenario.quality import Named


def variant_named(option: str, text: str, own: Iterable[Named] = ()) -> Named:
    """The model and quantization scheme in `text`: of the catalogue, or a model among `own`.

    Raises UsageError for another form, CatalogueError with the nearest names for an unknown one.
    """
    from simroute.errors import CatalogueError, UsageError
    from simroute.hardware import catalogue
    from simroute.scenario.quality import Named

    model, colon, scheme = text.rpartition(":")
    if not colon or not model or not scheme:
        raise UsageError(f"{option} {text}: must be MODEL:SCHEME, such as Llama-3.1-8B:fp8")
    models = {variant.model.lower(): variant.model for variant in own}
    try:
        return Named(models.get(model.lower()) or catalogue.model(model).name, catalogue.scheme(scheme).name)
    except CatalogueError as error:
        raise CatalogueError(f"{option} {text}: {error}") from None
