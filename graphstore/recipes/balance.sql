-- Do a layer's weights excite or inhibit: what share of them is negative, and what is their sum?
SELECT g.name AS graph, l.name AS layer, count(*) AS edges,
       round(100.0 * count(*) FILTER (e.weight < 0) / count(*), 1) AS percent_negative,
       round(sum(e.weight), 3) AS sum_of_weights
FROM edges AS e
JOIN graphs AS g ON g.id = e.graph
JOIN layers AS l ON l.graph = e.graph AND l.id = e.layer
WHERE e.tensor IS NOT NULL
GROUP BY g.id, g.name, l.id, l.name
ORDER BY g.id, l.id
