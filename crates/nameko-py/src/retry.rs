//! The retry policy of a publish, as in kombu.

use std::time::Duration;

use nameko::amqp;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A retry policy: how often a message is sent again, and at which intervals in seconds.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct Retry(pub(crate) amqp::Retry);

#[pymethods]
impl Retry {
    /// Raises ValueError if an interval is negative or not finite.
    #[new]
    #[pyo3(signature = (max_retries = 3, interval_start = 1.0, interval_step = 1.0, interval_max = 1.0))]
    fn new(
        max_retries: Option<u32>,
        interval_start: f64,
        interval_step: f64,
        interval_max: f64,
    ) -> PyResult<Self> {
        Ok(Retry(amqp::Retry {
            max_retries,
            interval_start: interval(interval_start)?,
            interval_step: interval(interval_step)?,
            interval_max: interval(interval_max)?,
        }))
    }
}

fn interval(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| PyValueError::new_err(format!("retry interval {seconds}: {error}")))
}
