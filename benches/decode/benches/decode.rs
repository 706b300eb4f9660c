//! The same readers under divan, for a closer look at one of them: `cargo bench -p decode`.

use std::hint::black_box;

use decode::{READERS, lines};

fn main() {
    divan::main();
}

#[divan::bench(args = READERS.map(|reader| reader.name))]
fn read(bencher: divan::Bencher<'_, '_>, name: &str) {
    let reader = READERS.into_iter().find(|reader| reader.name == name).unwrap();
    let lines = lines();
    bencher.bench(|| {
        for line in &lines {
            let _ = black_box((reader.read)(black_box(&line.bytes)));
        }
    });
}
