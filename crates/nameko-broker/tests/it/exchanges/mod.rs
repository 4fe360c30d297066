mod alternate;
mod bindings;
mod headers;
mod lifecycle;
mod routing;
