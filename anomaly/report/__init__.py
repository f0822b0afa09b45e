"""What is shown: plots, pictures, prose, the report, and the run that makes it.

    style       language, fonts, colours; a picture as PNG or JPEG
    plots       scores, ROC, confusion matrix, PCA, summary, comparison
    curves      how many images, how small a defect, how clean a folder
    diagram     the method as boxes and arrows
    pictures    grids of images, heat maps, what is written in them
    contents    what the report shows: images, galleries, facts
    explorer    one test image at one threshold: its picture, its decisions

    prose       Jinja templates of Markdown
    show        pictures and prose of the report as outputs
    lesson      figures and tables of a notebook, with their captions
    widgets     the explorer's controls, and who moves them
    translation the notebooks' prose in Chinese
    markdown    an executed report notebook as one text for pandoc
    joint       several of them as one
    layout      figures and tables arranged for pages
    exporters   nbconvert's: HTML by pandoc, PDF by typst
    run         notebooks executed by papermill, categories side by side

Everything takes arrays and plain values. What a result depends on is not in here, so
that a changed plot costs no features (see `cache.code`).
"""
