//! The measurements, as text and as JSON.

use std::time::Duration;

use crate::Arguments;

/// The clock of /proc/self/stat: USER_HZ, which is 100 in the kernel's interface to programs.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of this process so far.
pub(crate) fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc(5) is mounted");
    // The second field is the program's name in brackets, which may contain any character.
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2);
    TICK * ticks.map(|ticks| ticks.parse::<u32>().expect("a count")).sum::<u32>()
}

/// The measured window.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) sends: u64,
    pub(crate) sends_full: u64,
    pub(crate) bytes: u64,
    pub(crate) passes: Vec<Duration>,
}

impl Measured {
    pub(crate) fn print(&mut self, arguments: &Arguments, frame_bytes: usize) {
        self.passes.sort_unstable();
        let seconds = self.wall.as_secs_f64();
        let deliveries = self.bytes as f64 / frame_bytes as f64;
        let per_second = deliveries / seconds;
        let cpu_share = 100.0 * self.cpu.as_secs_f64() / seconds;
        let cpu_us_per_delivery = self.cpu.as_secs_f64() * 1e6 / deliveries;
        let frames_per_send = deliveries / self.sends as f64;
        let (pass_ms_p50, pass_ms_p99) = (self.pass_ms(50), self.pass_ms(99));
        let asked = u64::from(arguments.rate) * u64::from(arguments.connections);
        if arguments.json {
            println!(
                "{{\"connections\":{},\"frame_bytes\":{frame_bytes},\"rate\":{},\"window_ms\":{},\"seconds\":{seconds:.3},\
                 \"deliveries_per_second_asked\":{asked},\"deliveries_per_second\":{per_second:.0},\
                 \"cpu_percent\":{cpu_share:.1},\"cpu_us_per_delivery\":{cpu_us_per_delivery:.3},\
                 \"sends\":{},\"sends_full\":{},\"frames_per_send\":{frames_per_send:.2},\
                 \"passes\":{},\"pass_ms_p50\":{pass_ms_p50:.2},\"pass_ms_p99\":{pass_ms_p99:.2}}}",
                arguments.connections,
                arguments.rate,
                arguments.window,
                self.sends,
                self.sends_full,
                self.passes.len(),
            );
            return;
        }
        println!(
            "{} connections, frames of {frame_bytes} bytes, {} a second, {seconds:.1} s",
            arguments.connections, arguments.rate
        );
        println!("deliveries       {per_second:.0}/s of {asked}/s asked for, every byte received");
        println!("CPU              {cpu_share:.1}% of a core, {cpu_us_per_delivery:.2} us per delivery");
        println!(
            "sends            {frames_per_send:.2} frames each, {} found their socket full",
            self.sends_full
        );
        println!(
            "pass             {pass_ms_p50:.1} ms p50, {pass_ms_p99:.1} ms p99, {} passes",
            self.passes.len()
        );
    }

    fn pass_ms(&self, percent: usize) -> f64 {
        let index = (self.passes.len() * percent / 100).min(self.passes.len().saturating_sub(1));
        self.passes.get(index).map_or(0.0, |pass| pass.as_secs_f64() * 1e3)
    }
}
