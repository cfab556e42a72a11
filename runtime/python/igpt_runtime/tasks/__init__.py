"""What people ask for: complete, sample, classify, features and score, from pictures to results and their files.

Each task puts an opened bundle (`engine`) and pictures (`pictures`) together. It imports these, `bundle` and the
package's base, and prints nothing.
"""
