"""The one place that knows mesh axes: how logical axes of arrays lie on the devices."""
