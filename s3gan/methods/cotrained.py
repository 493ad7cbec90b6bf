"""Co-trained methods (section 3.2): D itself learns to predict the classes of the unlabelled images.

A linear head on D's features learns by cross-entropy from the labelled real images; what it predicts, behind a
stop-gradient, conditions D's score of the real images without a label. No pretraining, no classifier, one run.
"""

from s3gan.methods.base import Method
from s3gan.methods.labelled import GIVEN

_BUDGET = "use selfsup.label method=reveal or method=import: labels of a part of the samples"
s2gan_co = Method("s2gan_co", origins=GIVEN, advice=_BUDGET, heads=("predictor",), partial=True)
s3gan_co = Method("s3gan_co", origins=GIVEN, advice=_BUDGET, heads=("rotation", "predictor"), partial=True)
