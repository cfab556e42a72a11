"""What people look at: picture files in and out, pixels as tokens of a palette, contact sheets and animations.

It knows colours and files, and nothing of models. It imports the package's base only.
"""
