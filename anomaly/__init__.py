"""The workshop behind `helpers.py`: one noun a room.

    languages   words in English and Chinese
    errors      what bad input becomes: one line
    names       which files and folders count, which two names are the same
    files       whole-or-absent writing, digests of files
    machine     device, cores, versions, memory

    formats     what a file is by its content
    depth       16-bit files: which value in them is white
    images      reading images
    masks       which pixels a mask marks
    roi         the region of interest: which patches count
    dataset     the folders of a category
    labels      the truth, for the evaluation alone

    framing     place and light, brought into the normal range
    weights     checked downloads, loading without pickle
    backbones   the registry of networks
    network     a backbone cut behind its last tapped layer
    features    patches: batches, one grid, projection

    covariance  shrinkage by OAS, whitening
    gaussian    three covariances, Mahalanobis distances, folds
    likeness    normal images that look alike: groups, folds
    duplicates  the same picture twice
    doubts      what may break a promise, in figures and sentences
    scores      image score, anomaly map, threshold, colour scale
    regions     connected areas of a map, hits, F1 of pixels

    metrics     AUROC and decisions
    intervals   bootstrap, DeLong
    pixels      pixel AUROC, AUPRO, AUPIMO
    baselines   the memory bank, and other days
    evaluation  the figures of metrics.json, the rows of scores.csv

    planted     defects of our own on normal images
    sensitivity which of them are found, by size and place
    limits      how many images it takes, and bad ones among them
    forecast    what was predicted, beside what is measured

    settings    the parameters, each beside what is valid
    cli         one parser for all commands
    cache       results of the stages, kept on disk

    model       all that scoring a new image takes
    modelfile   a model in one file, checked before it is used
    onnx        a model as a graph, for other programs
    drift       is this still the day of the training?
    secondday   what another day costs, what new normals give back
    answers     answers written down: console, JSON, CSV

    report      plots, pictures, prose, exporters: see there

Rooms take arrays, paths and plain values. Only `helpers.py` puts settings, cache, data
and labels together, so that imports go one way: notebooks and tools import `helpers`,
it imports the rooms, and they import only rooms that stand above them or beside them.
"""
