"""Parts of the knob agent that need no TensorFlow: replay, normalisation, the action grid."""
