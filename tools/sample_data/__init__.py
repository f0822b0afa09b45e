"""Hazelnuts and zippers, good and defective, drawn from seeds by formulas alone.

    plan, dataset         which scenes there are; folders, masks and labels of them
    picture               one scene, its good twin, and the mask where they differ
    hazelnut              nut (the body), shell (its skin), nut_defects
    zipper                weave (its tape), teeth, zipper_defects
    noise, canvas         what they are drawn with

Lengths are fractions of the image (zipper) or nut radii (hazelnut), so that one seed
shows the same scene at every size.
"""
