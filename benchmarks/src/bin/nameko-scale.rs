//! Programs of different sizes on Nameko: 100 services, or one service with 1,000 entrypoints.

use nameko::prelude::*;
use nameko::{Bindings, Entrypoints, Injector, Method, Param, Rpc, Services};

/// Service number `N` of 100, `bench_services_00` to `bench_services_99`.
struct Numbered<const N: u8>;

/// The service with the most entrypoints, `hello` and 999 others.
struct Large;

impl<const N: u8> Numbered<N> {
    const NAME: [u8; 17] = {
        let mut name = *b"bench_services_00";
        name[15] += N / 10;
        name[16] += N % 10;
        name
    };
}

impl<const N: u8> Dependencies for Numbered<N> {
    fn bind(_: &mut Bindings<'_>) -> Injector<Self> {
        Injector::new(|_ctx| async { Ok(Self) })
    }
}

impl<const N: u8> Service for Numbered<N> {
    const NAME: &'static str = match std::str::from_utf8(&Self::NAME) {
        Ok(name) => name,
        Err(_) => panic!("a name of ASCII letters"),
    };

    fn entrypoints(entrypoints: &mut Entrypoints<Self>) {
        entrypoints.add(Rpc::new(), hello("hello"));
    }
}

impl Dependencies for Large {
    fn bind(_: &mut Bindings<'_>) -> Injector<Self> {
        Injector::new(|_ctx| async { Ok(Self) })
    }
}

impl Service for Large {
    const NAME: &'static str = "bench_entrypoints";

    fn entrypoints(entrypoints: &mut Entrypoints<Self>) {
        for number in 1..1_000 {
            entrypoints.add(Rpc::new(), hello(format!("hello_{number}").leak()));
        }
        entrypoints.add(Rpc::new(), hello("hello"));
    }
}

fn hello<S: Service>(method: &'static str) -> Method<S> {
    const NAME: &[Param] = &[Param::required("name")];
    Method::new(method, NAME, |args| {
        let name = args.take::<String>()?;
        Ok(Method::call(move |_: &S| {
            Box::pin(async move { Method::<S>::reply(Ok::<_, Error>(format!("Hello, {name}!"))) })
        }))
    })
}

/// Adds services by their numbers.
macro_rules! numbered {
    ($services:expr, $($number:literal)*) => {
        $services$(.add::<Numbered<$number>>())*
    };
}

fn main() -> ExitCode {
    let services = Services::new().add::<Large>();
    nameko::main(numbered!(
        services,
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24
        25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49
        50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74
        75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99
    ))
}
