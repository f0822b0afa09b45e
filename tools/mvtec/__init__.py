"""From MVTec AD's layout to this project's.

names       what folders may be called
archives    unpacking .tar and .zip without trusting them
folders     what lies in a folder
find        where the categories are
layout      what there is of one, checked
split       which images go where, by a seed
install     writing it all, or nothing
"""
