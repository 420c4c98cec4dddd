-- Which units stay below 0.05 on every input, and what weight leads out of them for nothing?
SELECT g.name AS graph, a.layer_name AS layer, count(DISTINCT a.unit) AS silent,
       round(coalesce(sum(s.l1), 0), 3) AS weight_out
FROM unit_activations AS a
JOIN graphs AS g ON g.id = a.graph
LEFT JOIN unit_strengths AS s ON s.graph = a.graph AND s.unit = a.unit AND s.outgoing
WHERE a.neuron AND a.max <= 0.05
GROUP BY g.id, g.name, a.layer, a.layer_name
ORDER BY g.id, a.layer
