"""JupyterLab's configuration for `make lab`: what it saves can be opened again.

A widget lives as long as its kernel. In a saved notebook it would be "Error displaying
widget: model not found"; without it the still view beside it is shown.
"""

WIDGET = "application/vnd.jupyter.widget-view+json"


def without_widgets(model, **_):
    """Take widgets that have a still view out of a notebook that is being saved."""
    if model["type"] != "notebook":
        return
    for cell in model["content"]["cells"]:
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output["data"].pop(WIDGET, None)


if "get_config" in globals():  # when Jupyter reads this
    get_config().FileContentsManager.pre_save_hook = without_widgets  # noqa: F821
