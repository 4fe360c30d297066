//! Detection of monkey-patched or overridden attributes.

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit};

/// The expected values of attributes, any of which a test or an extension may replace at any time.
#[pyclass(frozen, module = "nameko._nameko")]
pub(crate) struct PatchGuard {
    places: Vec<Place>,
}

struct Place {
    owner: Owner,
    name: Py<PyString>,
    /// None for a key that the dict must not have.
    expected: Option<Py<PyAny>>,
}

enum Owner {
    Dict(Py<PyDict>),
    Object(Py<PyAny>),
}

#[pymethods]
impl PatchGuard {
    /// `expected`: tuples of owner, name and value. Of a dict the item is compared, None for an
    /// absent one; of any other owner the attribute.
    #[new]
    fn new(expected: Vec<Place>) -> Self {
        PatchGuard { places: expected }
    }

    /// An owner may refer to its guard: lets the garbage collector find the reference cycle.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for Place {
            owner, expected, ..
        } in &self.places
        {
            match owner {
                Owner::Dict(dict) => visit.call(dict)?,
                Owner::Object(object) => visit.call(object)?,
            }
            visit.call(expected)?;
        }
        Ok(())
    }

    /// Returns whether every attribute has its expected value.
    fn intact(&self, py: Python<'_>) -> bool {
        self.places.iter().all(|place| place.is_intact(py))
    }
}

impl<'py> FromPyObject<'_, 'py> for Place {
    type Error = PyErr;

    fn extract(place: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let (owner, name, expected) = place.extract::<(Bound<'py, PyAny>, _, _)>()?;
        let owner = match owner.cast_into::<PyDict>() {
            Ok(dict) => Owner::Dict(dict.unbind()),
            Err(other) => Owner::Object(other.into_inner().unbind()),
        };
        Ok(Place {
            owner,
            name,
            expected,
        })
    }
}

impl Place {
    fn is_intact(&self, py: Python<'_>) -> bool {
        let found = match &self.owner {
            Owner::Dict(dict) => dict.bind(py).get_item(&self.name),
            Owner::Object(object) => object.bind(py).getattr_opt(&self.name),
        };
        match (found, &self.expected) {
            (Ok(Some(found)), Some(expected)) => found.is(expected),
            (Ok(None), None) => true,
            _ => false,
        }
    }
}
