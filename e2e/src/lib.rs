//! Tests of what is installed: the chart as Helm renders it.
