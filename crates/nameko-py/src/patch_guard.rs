//! Whether anybody has put something else in the place of what we wrote.

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit};

/// What some attributes are meant to be. A test, or an extension, may have replaced one, at any time.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct PatchGuard {
    places: Vec<Place>,
}

struct Place {
    owner: Owner,
    name: Py<PyString>,
    /// None where the dict is to have no such key.
    original: Option<Py<PyAny>>,
}

enum Owner {
    Dict(Py<PyDict>),
    Object(Py<PyAny>),
}

#[pymethods]
impl PatchGuard {
    /// `expected`: `(owner, name, original)`. Of a dict it is the item that is looked at, with None for one that is not to be
    /// there; of anything else the attribute.
    #[new]
    fn new(expected: Vec<Place>) -> Self {
        PatchGuard { places: expected }
    }

    /// An object may keep what looks at it: the collector sees such a circle.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for Place {
            owner, original, ..
        } in &self.places
        {
            match owner {
                Owner::Dict(dict) => visit.call(dict)?,
                Owner::Object(object) => visit.call(object)?,
            }
            visit.call(original)?;
        }
        Ok(())
    }

    /// Whether all of them are there, and nothing where nothing is to be.
    fn intact(&self, py: Python<'_>) -> bool {
        self.places.iter().all(|place| place.holds(py))
    }
}

impl<'py> FromPyObject<'_, 'py> for Place {
    type Error = PyErr;

    fn extract(place: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let (owner, name, original) = place.extract::<(Bound<'py, PyAny>, _, _)>()?;
        let owner = match owner.cast_into::<PyDict>() {
            Ok(dict) => Owner::Dict(dict.unbind()),
            Err(other) => Owner::Object(other.into_inner().unbind()),
        };
        Ok(Place {
            owner,
            name,
            original,
        })
    }
}

impl Place {
    fn holds(&self, py: Python<'_>) -> bool {
        let found = match &self.owner {
            Owner::Dict(dict) => dict.bind(py).get_item(&self.name),
            Owner::Object(object) => object.bind(py).getattr_opt(&self.name),
        };
        match (found, &self.original) {
            (Ok(Some(found)), Some(original)) => found.is(original),
            (Ok(None), None) => true,
            _ => false,
        }
    }
}
