//! Progressive filling as the textbook says it, over everything, each time: what the solver is held to.

/// One flow as the oracle sees it.
#[derive(Clone, Debug)]
pub(crate) struct OracleFlow {
    /// Indices into the capacities.
    pub(crate) links: Vec<usize>,
    /// Rate per level.
    pub(crate) weight: f64,
    /// Bytes per second, infinite for none.
    pub(crate) cap: f64,
}

/// The weighted max-min fair rates of `flows` over links of these capacities, in bytes per second.
pub(crate) fn fill(capacities: &[f64], flows: &[OracleFlow]) -> Vec<f64> {
    let mut rates: Vec<Option<f64>> = vec![None; flows.len()];
    loop {
        // What stops the filling next: a cap, or a link.
        let mut lowest = f64::INFINITY;
        let mut stops: Vec<usize> = Vec::new();
        for (i, flow) in flows.iter().enumerate() {
            if rates[i].is_none() && flow.cap / flow.weight < lowest {
                lowest = flow.cap / flow.weight;
                stops = vec![i];
            }
        }
        for (l, &capacity) in capacities.iter().enumerate() {
            let (mut used, mut weight, mut rising) = (0.0, 0.0, Vec::new());
            for (i, flow) in flows.iter().enumerate() {
                for _ in flow.links.iter().filter(|&&x| x == l) {
                    match rates[i] {
                        Some(rate) => used += rate,
                        None => {
                            weight += flow.weight;
                            rising.push(i);
                        }
                    }
                }
            }
            let level = ((capacity - used) / weight).max(0.0);
            if !rising.is_empty() && level < lowest {
                lowest = level;
                stops = rising;
            }
        }
        if stops.is_empty() {
            return rates.into_iter().map(|rate| rate.unwrap_or(f64::INFINITY)).collect();
        }
        for i in stops {
            rates[i] = Some((flows[i].weight * lowest).min(flows[i].cap));
        }
    }
}
