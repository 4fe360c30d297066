//! The guide. All samples are compiled and run by the tests.
//!
//! Start with [install], [hello] and [concepts]. [rpc], [events], [messaging], [http], [websocket]
//! and [timers] each cover a kind of entrypoint, [dependencies], [context], [layers],
//! [transactions], [extensions], [serialization] and [testing] the tools around them. [embedding]
//! runs services in a program of your own, [production] covers configuration and deployment.

// The chapters are pages of the documentation site, plain Markdown. `links.md` comes first and
// defines their reference links as links to Rust items; of two definitions the first applies.
macro_rules! chapter {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub mod $name {
            #![doc = include_str!("../docs/links.md")]
            #![doc = include_str!(concat!("../docs/", stringify!($name), ".md"))]
        }
    };
}

chapter!(install);
chapter!(hello);
chapter!(concepts);
chapter!(rpc);
chapter!(events);
chapter!(messaging);
chapter!(http);
chapter!(websocket);
chapter!(timers);
chapter!(dependencies);
chapter!(context);
chapter!(layers);
// Its samples are tests of nameko-sqlx.
chapter!(
    #[cfg(not(doctest))]
    transactions
);
chapter!(extensions);
chapter!(serialization);
chapter!(testing);
chapter!(embedding);
chapter!(production);

// Pages of the site without a chapter here; only their samples are tested.
chapter!(
    #[cfg(doctest)]
    index
);
