"""Training of a conditional GAN, for the command `s3gan.train`. Start with gan_training.py, then game.py and step.py.

Then, in any order: config.py (the keys), conditioning.py (conditions from a label table), fakes.py (noise and
conditions of generated images), health.py (when a run has diverged or collapsed), validation.py (scores during
training), reclustering.py (self-conditioned GANs), memory.py (the memory that training takes).
"""
