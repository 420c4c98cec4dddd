-- Which hidden units are most selective: rarely above 0, but strongly?
SELECT g.name AS graph, a.layer_name AS layer, a.position AS unit, round(a.share_positive, 3) AS share_active,
       round(a.max, 3) AS largest, round(a.mean, 4) AS mean
FROM unit_activations AS a
JOIN graphs AS g ON g.id = a.graph
JOIN units AS u ON u.graph = a.graph AND u.id = a.unit
WHERE u.role = 'hidden' AND a.neuron AND a.share_positive > 0
ORDER BY a.share_positive, largest DESC, g.id, a.unit
LIMIT 10
