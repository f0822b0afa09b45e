"""From MVTec AD's layout to this project's.

names       which files and folders count, and what they may be called
archives    unpacking .tar and .zip without trusting them
folders     what lies in a folder
find        where the categories are
layout      what there is of one, checked
masks       which pixels a mask marks
split       which images go where, by a seed
install     writing it all, or nothing
"""
