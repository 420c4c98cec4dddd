-- How large is each layer, and how much of it is exactly zero?
SELECT g.name AS graph, l.name AS layer, l.kind, l.n_units AS units, l.n_params AS parameters,
       round(100.0 * l.n_zeros / nullif(l.n_params, 0), 1) AS percent_zero
FROM layers AS l JOIN graphs AS g ON g.id = l.graph
ORDER BY g.id, l.id
