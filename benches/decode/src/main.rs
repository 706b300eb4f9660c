//! Prints what reading each header costs, and the ratio to the fastest rival, measured in turns in the same rounds.

use std::hint::black_box;
use std::time::Duration;

use decode::{Line, READERS, Reader, ends, lines};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 301;

/// Reads in a row: long against a system call, short against a time slice.
const BATCH: u32 = 4000;

fn main() {
    println!(
        "ns of CPU a header: median of {ROUNDS} rounds. Ratio: ours / fastest rival in the same round.\n"
    );
    print!("| header |");
    for reader in READERS {
        print!(" {} |", reader.name);
    }
    println!(" ratio (quartiles) | target |");
    println!("|---|{}---|---|", "---:|".repeat(READERS.len()));
    for line in lines() {
        measure(&line);
    }
}

fn measure(line: &Line) {
    let readers: Vec<Reader> = READERS.into_iter().filter(|reader| understands(reader, line)).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); readers.len()];
    for round in 0..ROUNDS {
        for turn in 0..readers.len() {
            let index = (round + turn) % readers.len();
            times[index].push(time(&readers[index], &line.bytes));
        }
    }
    let ratios = (0..ROUNDS).map(|round| {
        let fastest = times[1..].iter().map(|times| times[round]).fold(f64::INFINITY, f64::min);
        times[0][round] / fastest
    });
    let ratios = quartiles(ratios.collect());
    print!("| {} ({} bytes) |", line.name, line.bytes.len());
    for reader in READERS {
        match readers.iter().position(|other| other.name == reader.name) {
            Some(index) => print!(" {:.1} |", quartiles(times[index].clone())[1]),
            None => print!(" refuses |"),
        }
    }
    let target = if line.has_tlvs { 3.0 } else { 1.0 };
    println!(" {:.2} ({:.2}-{:.2}) | {target:.1} |", ratios[1], ratios[0], ratios[2]);
}

/// Whether the reader finds the client that we find.
fn understands(reader: &Reader, line: &Line) -> bool {
    let client = |reader: &Reader| (reader.read)(&line.bytes).map(|client| client.map(ends));
    client(reader).is_ok() && client(reader) == client(&READERS[0])
}

fn time(reader: &Reader, bytes: &[u8]) -> f64 {
    let start = cpu_time();
    for _ in 0..BATCH {
        let _ = black_box((reader.read)(black_box(bytes)));
    }
    cpu_time().saturating_sub(start).as_secs_f64() * 1e9 / f64::from(BATCH)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
